-- Rows of minute_aggregates that count different messages as one row for each customer, channel and minute.
-- Input: minutes (in the columns of minute_aggregates).
-- The newest name is the greatest one among the newest events, as in minute_aggregates.sql.
with totals as (
    select
        customer_id,
        channel,
        minute,
        max(batch) as batch,
        cast(sum(notifications) as bigint) as notifications,
        min(first_event) as first_event,
        max(last_event) as last_event
    from minutes
    group by customer_id, channel, minute
),

names as (
    select minutes.customer_id, minutes.channel, minutes.minute, max(minutes.customer_name) as customer_name
    from minutes
    inner join totals
        on
            totals.customer_id = minutes.customer_id
            and totals.channel = minutes.channel
            and totals.minute = minutes.minute
            and totals.last_event = minutes.last_event
    group by minutes.customer_id, minutes.channel, minutes.minute
)

select
    totals.batch,
    totals.customer_id,
    names.customer_name,
    totals.channel,
    totals.minute,
    totals.notifications,
    totals.first_event,
    totals.last_event,
    cast(totals.minute as date) as event_date,
    cast(extract('hour' from totals.minute) as integer) as event_hour
from totals
inner join names
    on
        names.customer_id = totals.customer_id
        and names.channel = totals.channel
        and names.minute = totals.minute
