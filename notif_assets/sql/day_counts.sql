-- One day's messages per customer and channel, with the customer's newest name of the day (by event, then by name).
-- Input: minutes (minute_aggregates of the day).
with newest as (
    select customer_id, max(last_event) as last_event
    from minutes
    group by customer_id
),

names as (
    select minutes.customer_id, max(minutes.customer_name) as customer_name
    from minutes
    inner join newest on newest.customer_id = minutes.customer_id and newest.last_event = minutes.last_event
    group by minutes.customer_id
)

select
    minutes.customer_id,
    names.customer_name,
    minutes.channel,
    cast(sum(minutes.notifications) as bigint) as notifications
from minutes
inner join names on names.customer_id = minutes.customer_id
group by minutes.customer_id, names.customer_name, minutes.channel
