-- Every customer and channel that the panel shows already or that changed since, with its newest event and the name
-- there (the greatest of several). Reduced here, as all minutes there ever were may come in.
-- Inputs: panel (customer_panel as it is), minutes (minute_aggregates that changed since).
with entries as (
    select customer_id, customer_name, channel, last_event from panel
    union all
    select customer_id, customer_name, channel, last_event from minutes
),

newest as (
    select customer_id, channel, max(last_event) as last_event
    from entries
    group by customer_id, channel
)

select newest.customer_id, max(entries.customer_name) as customer_name, newest.channel, newest.last_event
from newest
inner join entries
    on
        entries.customer_id = newest.customer_id
        and entries.channel = newest.channel
        and entries.last_event = newest.last_event
group by newest.customer_id, newest.channel, newest.last_event
