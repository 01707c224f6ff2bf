-- The detailed report: every message, in the order that a customer reads it.
-- Input: notifications (already of the customer and the period asked), with places.
-- A payload of more than $longest bytes is null: it would be held until the order is known. Its place tells where it is.
select
    customer_id, message_id, customer_name, channel,
    case when strlen(payload) <= $longest then payload end as payload,
    event_datetime,
    strlen(payload) as payload_bytes, file, row
from notifications
where $channel is null or lower(channel) = lower($channel)
order by customer_id, event_datetime, message_id
