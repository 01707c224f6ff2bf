-- The batches that took offsets before the first one that raw_notifications still holds.
-- Inputs: batches (ingest_batches up to raw_notifications' own), losses (ingest_losses), records (raw_notifications).
-- A batch whose offsets were all lost, and accepted as such, never had a record.
with lost as (
    select batch, kafka_partition, max(end_offset) as end_offset
    from losses
    group by batch, kafka_partition
),

taken as (
    select distinct batches.batch
    from batches
    left join lost on lost.batch = batches.batch and lost.kafka_partition = batches.kafka_partition
    where greatest(batches.start_offset, coalesce(lost.end_offset, 0)) < batches.end_offset
),

held as (
    select min(batch) as first_batch
    from records
)

select min(taken.batch) as first_batch, max(taken.batch) as last_batch
from taken
cross join held
where held.first_batch is null or taken.batch < held.first_batch
