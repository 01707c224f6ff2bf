-- The customers and channels of some minutes.
-- Input: minutes (of minute_aggregates).
select distinct customer_id, channel
from minutes
