-- Of every hour that a change touched, the stretch of whole minutes from its first to its last touched one.
-- Input: changes (event_datetime of every message added or removed).
select
    epoch_us(event_datetime) // 3600000000 as hour_number,
    make_timestamptz(min(epoch_us(event_datetime)) // 60000000 * 60000000) as starts_at,
    make_timestamptz((max(epoch_us(event_datetime)) // 60000000 + 1) * 60000000) as ends_at
from changes
group by epoch_us(event_datetime) // 3600000000
order by hour_number
