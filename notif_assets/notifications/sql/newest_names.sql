-- Every customer and channel of all minutes, with its newest event and the name it had then (the greatest of several).
-- Input: minutes (minute_aggregates).
with newest as (
    select customer_id, channel, max(last_event) as last_event
    from minutes
    group by customer_id, channel
)

select minutes.customer_id, max(minutes.customer_name) as customer_name, minutes.channel, minutes.last_event
from minutes
inner join newest
    on
        newest.customer_id = minutes.customer_id
        and newest.channel = minutes.channel
        and newest.last_event = minutes.last_event
group by minutes.customer_id, minutes.channel, minutes.last_event
