-- The first and the last batch that brought any of these messages.
-- Input: notifications.
select min(batch) as first_batch, max(batch) as last_batch
from notifications
