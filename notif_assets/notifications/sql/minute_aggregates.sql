-- Notifications per customer, channel and minute, for those that changed.
-- Inputs: notifications, touched (customer_id, channel and minute of what to count), before (rows of minute_aggregates of
-- these, which count other messages; none to count from the beginning).
-- Minutes as integers: truncating a timestamp with zone costs sixteen times as much. The newest name of a minute is
-- the greatest one among its newest events, by a window and not by an aggregate of pairs, which Spark orders otherwise.
with wanted as (
    select customer_id, channel, epoch_us(minute) // 60000000 as minute_number
    from touched
),

counted as (
    select
        notifications.batch,
        notifications.customer_id,
        notifications.customer_name,
        notifications.channel,
        epoch_us(notifications.event_datetime) // 60000000 as minute_number,
        1 as notifications,
        notifications.event_datetime as first_event,
        notifications.event_datetime as last_event
    from notifications
    semi join wanted
        on
            wanted.customer_id = notifications.customer_id
            and wanted.channel = notifications.channel
            and wanted.minute_number = epoch_us(notifications.event_datetime) // 60000000
    union all
    select
        batch,
        customer_id,
        customer_name,
        channel,
        epoch_us(minute) // 60000000 as minute_number,
        notifications,
        first_event,
        last_event
    from before
),

totals as (
    select
        customer_id,
        channel,
        minute_number,
        max(batch) as batch,
        cast(sum(notifications) as bigint) as notifications,
        min(first_event) as first_event,
        max(last_event) as last_event
    from counted
    group by customer_id, channel, minute_number
),

names as (
    select counted.customer_id, counted.channel, counted.minute_number, max(counted.customer_name) as customer_name
    from counted
    inner join totals
        on
            totals.customer_id = counted.customer_id
            and totals.channel = counted.channel
            and totals.minute_number = counted.minute_number
            and totals.last_event = counted.last_event
    group by counted.customer_id, counted.channel, counted.minute_number
)

select
    totals.batch,
    totals.customer_id,
    names.customer_name,
    totals.channel,
    make_timestamptz(totals.minute_number * 60000000) as minute,
    totals.notifications,
    totals.first_event,
    totals.last_event,
    cast(make_timestamptz(totals.minute_number * 60000000) as date) as event_date,
    cast(totals.minute_number // 60 % 24 as integer) as event_hour
from totals
inner join names
    on
        names.customer_id = totals.customer_id
        and names.channel = totals.channel
        and names.minute_number = totals.minute_number
