-- The next $most rows of the detailed report of one customer, behind a message that was shown already.
-- Input: notifications (already of the customer and the period asked), with places. Output: as detailed.sql.
select
    customer_id, message_id, customer_name, channel,
    case when strlen(payload) <= $longest then payload end as payload,
    event_datetime,
    strlen(payload) as payload_bytes, file, row
from notifications
where
    ($channel is null or lower(channel) = lower($channel))
    and (
        cast($after_event as timestamptz) is null
        or event_datetime > cast($after_event as timestamptz)
        or (event_datetime = cast($after_event as timestamptz) and message_id > $after_message_id)
    )
order by event_datetime, message_id
limit $most
