-- One hour's notifications of all customers, sorted so that one customer's rows lie together.
-- Input: minutes (minute_aggregates of the hour).
select
    customer_id,
    channel,
    cast(sum(notifications) as bigint) as notifications
from minutes
group by customer_id, channel
order by customer_id, channel
