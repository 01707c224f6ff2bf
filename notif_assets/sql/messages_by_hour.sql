-- The messages of each hour, counted from the messages themselves.
-- Input: notifications.
select event_date, event_hour, count(*) as notifications
from notifications
group by event_date, event_hour
