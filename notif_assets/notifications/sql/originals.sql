-- Of each repeated message, where the one that counts is: the first in arrival order within the window.
-- Inputs: repeated (valid messages that are not in notifications, with the window in which they were looked for),
-- stored (messages accepted before, of all the hours that a window touches). Keys and places only: of whole hours
-- nothing more is read.
-- Arrival order is (batch, kafka_partition, kafka_offset).
with matches as (
    select
        repeated.kafka_partition,
        repeated.kafka_offset,
        stored.batch as first_batch,
        stored.kafka_partition as first_partition,
        stored.kafka_offset as first_offset,
        stored.event_date,
        stored.event_hour,
        row_number() over (
            partition by repeated.kafka_partition, repeated.kafka_offset
            order by stored.batch, stored.kafka_partition, stored.kafka_offset
        ) as occurrence
    from repeated
    inner join stored
        on stored.customer_id = repeated.customer_id and stored.message_id = repeated.message_id
    where
        stored.event_datetime >= repeated.window_from
        and stored.event_datetime < repeated.window_to
)

select kafka_partition, kafka_offset, first_batch, first_partition, first_offset, event_date, event_hour
from matches
where occurrence = 1
