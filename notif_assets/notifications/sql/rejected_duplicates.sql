-- Duplicates with their reason: a duplicate whose name, channel or payload differs from the first one is a conflict.
-- Inputs: repeated (valid messages that are not in notifications), originals (where the first one of each is), firsts
-- (rows of notifications that hold all those first ones).
-- Several columns compare one by one, as Spark has no rows to compare. Payloads are compared by their hashes: the engine
-- would hold them for each row, however long they are.
-- Only those of the first ones are hashed: a few rows of their files.
with firsts_hashed as (
    select
        firsts.kafka_partition,
        firsts.kafka_offset,
        firsts.customer_name,
        firsts.channel,
        sha256(firsts.payload) as payload_hash
    from firsts
    semi join originals
        on
            originals.first_partition = firsts.kafka_partition
            and originals.first_offset = firsts.kafka_offset
),

compared as (
    select
        originals.kafka_partition,
        originals.kafka_offset,
        originals.first_batch,
        originals.first_partition,
        originals.first_offset,
        firsts_hashed.customer_name,
        firsts_hashed.channel,
        firsts_hashed.payload_hash
    from originals
    inner join firsts_hashed
        on
            firsts_hashed.kafka_partition = originals.first_partition
            and firsts_hashed.kafka_offset = originals.first_offset
)

select
    repeated.batch,
    repeated.topic,
    repeated.kafka_partition,
    repeated.kafka_offset,
    repeated.kafka_timestamp,
    repeated.value,
    case
        when
            compared.customer_name <> repeated.customer_name
            or compared.channel <> repeated.channel
            or compared.payload_hash <> sha256(repeated.payload)
            then 'duplicate_conflict'
        else 'duplicate'
    end as reason,
    coalesce(
        'the first is batch ' || cast(compared.first_batch as varchar)
        || ', partition ' || cast(compared.first_partition as varchar)
        || ', offset ' || cast(compared.first_offset as varchar),
        'the first is no longer there'
    ) as detail,
    repeated.customer_id,
    repeated.message_id,
    repeated.ingested_at,
    cast(repeated.ingested_at as date) as ingest_date
from repeated
left join compared
    on
        compared.kafka_partition = repeated.kafka_partition
        and compared.kafka_offset = repeated.kafka_offset
