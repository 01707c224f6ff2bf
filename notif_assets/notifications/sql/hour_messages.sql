-- How many messages each hour holds, counted one by one.
-- Input: notifications.
select event_date, event_hour, count(*) as messages
from notifications
group by event_date, event_hour
