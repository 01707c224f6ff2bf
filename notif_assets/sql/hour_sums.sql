-- One hour's notifications of all customers, by the name they had, sorted so that one customer's rows lie together.
-- Input: minutes (minute_aggregates of the hour).
select
    customer_id,
    customer_name,
    channel,
    cast(sum(notifications) as bigint) as notifications,
    max(last_event) as last_event
from minutes
group by customer_id, customer_name, channel
order by customer_id, channel, customer_name
