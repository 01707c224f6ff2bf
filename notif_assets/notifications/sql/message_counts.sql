-- Messages per customer and channel, counted from the messages themselves.
-- Input: notifications.
select customer_id, channel, count(*) as notifications
from notifications
group by customer_id, channel
