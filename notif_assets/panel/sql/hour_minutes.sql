-- One hour's notifications of all customers per minute, sorted so that one customer's rows lie together; in small types,
-- for all of it is kept in memory.
-- Input: minutes (minute_aggregates of the hour).
select
    customer_id,
    channel,
    cast(extract('minute' from minute) as utinyint) as minute,
    cast(notifications as integer) as notifications
from minutes
order by customer_id, minute, channel
