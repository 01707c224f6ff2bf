-- The customers, channels and minutes of messages that some batches added to notifications or took out of it.
-- Inputs: added (notifications of the batches), removed (messages taken out).
with changes as (
    select customer_id, channel, epoch_us(event_datetime) // 60000000 as minute_number from added
    union
    select customer_id, channel, epoch_us(event_datetime) // 60000000 as minute_number from removed
)

select
    customer_id,
    channel,
    make_timestamptz(minute_number * 60000000) as minute,
    cast(make_timestamptz(minute_number * 60000000) as date) as event_date,
    cast(minute_number // 60 % 24 as integer) as event_hour
from changes
