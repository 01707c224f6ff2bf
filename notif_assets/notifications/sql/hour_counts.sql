-- What the minutes of each hour add up to.
-- Input: minutes (minute_aggregates).
select event_date, event_hour, cast(sum(notifications) as bigint) as notifications
from minutes
group by event_date, event_hour
