-- Valid messages with the window in which an earlier message with their key makes them duplicates: the hour of the
-- event, or, where its day is already deduplicated, that day and both its neighbours.
-- Inputs: valid, days (billing days; window_from and window_to are null where the hour is the window).
select
    valid.*,
    coalesce(days.window_from, make_timestamptz(epoch_us(event_datetime) // 3600000000 * 3600000000)) as window_from,
    coalesce(days.window_to, make_timestamptz((epoch_us(event_datetime) // 3600000000 + 1) * 3600000000)) as window_to
from valid
inner join days on valid.event_datetime >= days.starts_at and valid.event_datetime < days.ends_at
