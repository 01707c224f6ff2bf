-- One day's messages per customer and channel, with the customer's newest name of the day (by event, then by name).
-- Input: minutes (minute_aggregates of the day), read once: what is looked up below is a row per name.
with counted as (
    select
        customer_id,
        channel,
        customer_name,
        sum(notifications) as notifications,
        max(last_event) as last_event
    from minutes
    group by customer_id, channel, customer_name
),

newest as (
    select customer_id, max(last_event) as last_event
    from counted
    group by customer_id
),

names as (
    select counted.customer_id, max(counted.customer_name) as customer_name
    from counted
    inner join newest on newest.customer_id = counted.customer_id and newest.last_event = counted.last_event
    group by counted.customer_id
)

select
    counted.customer_id,
    names.customer_name,
    counted.channel,
    cast(sum(counted.notifications) as bigint) as notifications
from counted
inner join names on names.customer_id = counted.customer_id
group by counted.customer_id, names.customer_name, counted.channel
