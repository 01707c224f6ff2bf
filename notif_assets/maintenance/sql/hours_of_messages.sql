-- The UTC hours in which any of these messages happened.
-- Input: notifications.
select distinct make_timestamptz(epoch_us(event_datetime) // 3600000000 * 3600000000) as hour_begins_at
from notifications
