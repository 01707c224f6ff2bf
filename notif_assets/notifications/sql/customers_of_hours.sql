-- The customers that each hour has messages of.
-- Input: messages (notifications).
select distinct customer_id, event_date, event_hour
from messages
