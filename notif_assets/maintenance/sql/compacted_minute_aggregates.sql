-- The rows of some files of minute_aggregates, sorted so that one customer's rows lie together.
-- Input: files.
select *
from files
order by customer_id, channel, minute
