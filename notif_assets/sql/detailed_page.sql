-- The next $most rows of the detailed report of one customer, behind a message that was shown already.
-- Input: notifications (already of the customer and the period asked).
select customer_id, message_id, customer_name, channel, payload, event_datetime
from notifications
where
    ($channel is null or channel = $channel)
    and (
        cast($after_event as timestamptz) is null
        or event_datetime > cast($after_event as timestamptz)
        or (event_datetime = cast($after_event as timestamptz) and message_id > $after_message_id)
    )
order by event_datetime, message_id
limit $most
