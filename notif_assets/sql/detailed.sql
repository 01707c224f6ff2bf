-- The detailed report: every message, in the order that a customer reads it.
-- Input: notifications (already of the customer and the period asked).
select customer_id, message_id, customer_name, channel, payload, event_datetime
from notifications
where $channel is null or channel = $channel
order by customer_id, event_datetime, message_id
