-- How many messages were rejected for which reason.
-- Input: rejected (rejected_notifications, some files of them).
select reason, count(*) as messages
from rejected
group by reason
