-- The messages of one batch that nobody sent before, as far as can be seen on arrival.
-- Inputs: arrived (the batch's valid messages, each with the window in which an earlier message with its key makes it
-- a duplicate), stored (messages accepted before, of all the hours that a window touches).
-- Keys are compared as two columns: glued into one string, ('1', '23') and ('12', '3') would be the same message.
with repeated as (
    select customer_id, message_id
    from arrived
    group by customer_id, message_id
    having count(*) > 1
),

repeats as (
    select kafka_partition, kafka_offset
    from (
        select
            kafka_partition,
            kafka_offset,
            row_number() over (
                partition by customer_id, message_id, window_from order by kafka_partition, kafka_offset
            ) as occurrence
        from arrived
        semi join repeated using (customer_id, message_id)
    ) as numbered
    where occurrence > 1
),

known as (
    select arrived.kafka_partition, arrived.kafka_offset
    from arrived
    inner join stored
        on stored.customer_id = arrived.customer_id and stored.message_id = arrived.message_id
    where stored.event_datetime >= arrived.window_from and stored.event_datetime < arrived.window_to
)

select
    batch,
    topic,
    customer_id,
    message_id,
    customer_name,
    channel,
    payload,
    event_datetime,
    kafka_partition,
    kafka_offset,
    kafka_timestamp,
    ingested_at,
    cast(event_datetime as date) as event_date,
    cast(epoch_us(event_datetime) // 3600000000 % 24 as integer) as event_hour,
    window_from,
    window_to
from arrived
anti join repeats using (kafka_partition, kafka_offset)
anti join known using (kafka_partition, kafka_offset)
