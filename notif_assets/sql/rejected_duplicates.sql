-- Duplicates with their reason: a duplicate whose name, channel or payload differs from the first one is a conflict.
-- Inputs: repeated (valid messages that are not in notifications, with the window in which they were looked for),
-- stored (messages accepted before, of all the hours that a window touches).
-- Arrival order is (batch, kafka_partition, kafka_offset); several columns compare one by one, as Spark has no rows to
-- compare.
with originals as (
    select
        repeated.kafka_partition,
        repeated.kafka_offset,
        stored.batch as first_batch,
        stored.kafka_partition as first_partition,
        stored.kafka_offset as first_offset,
        stored.customer_name <> repeated.customer_name
        or stored.channel <> repeated.channel
        or stored.payload <> repeated.payload as differs,
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

select
    repeated.batch,
    repeated.topic,
    repeated.kafka_partition,
    repeated.kafka_offset,
    repeated.kafka_timestamp,
    repeated.value,
    case when originals.differs then 'duplicate_conflict' else 'duplicate' end as reason,
    coalesce(
        'the first is batch ' || cast(originals.first_batch as varchar)
        || ', partition ' || cast(originals.first_partition as varchar)
        || ', offset ' || cast(originals.first_offset as varchar),
        'the first is no longer there'
    ) as detail,
    repeated.customer_id,
    repeated.message_id,
    repeated.ingested_at,
    cast(repeated.ingested_at as date) as ingest_date
from repeated
left join originals
    on
        originals.kafka_partition = repeated.kafka_partition
        and originals.kafka_offset = repeated.kafka_offset
        and originals.occurrence = 1
