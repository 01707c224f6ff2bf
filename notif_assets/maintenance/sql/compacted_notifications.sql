-- The rows of some files of notifications, sorted so that one customer's rows lie together.
-- Input: files.
select *
from files
order by customer_id, event_datetime, message_id
