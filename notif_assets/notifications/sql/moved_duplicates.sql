-- The rows of rejected_notifications, less their values, for messages that the deduplication of whole days takes out of
-- notifications.
-- Inputs: duplicates (their places, and the place of the first one), messages (these and the first ones, as
-- payload_hashes.sql gives them).
select
    ours.kafka_partition,
    ours.kafka_offset,
    cast($batch as bigint) as batch,
    ours.topic,
    ours.kafka_timestamp,
    case
        when
            ours.customer_name <> originals.customer_name
            or ours.channel <> originals.channel
            or ours.payload_hash <> originals.payload_hash
            then 'duplicate_conflict'
        else 'duplicate'
    end as reason,
    'the first is batch ' || cast(originals.batch as varchar)
    || ', partition ' || cast(originals.kafka_partition as varchar)
    || ', offset ' || cast(originals.kafka_offset as varchar) as detail,
    ours.customer_id,
    ours.message_id,
    ours.ingested_at,
    cast(ours.ingested_at as date) as ingest_date
from duplicates
inner join messages as ours
    on ours.kafka_partition = duplicates.kafka_partition and ours.kafka_offset = duplicates.kafka_offset
inner join messages as originals
    on
        originals.kafka_partition = duplicates.first_partition
        and originals.kafka_offset = duplicates.first_offset
