-- How many records lie outside the range that the ledger gives their batch, or are of a batch it does not have; 0 or
-- more, by batch and partition.
-- Inputs: batches (ingest_batches), records (raw_notifications).
with taken as (
    select batch, kafka_partition, min(kafka_offset) as first_offset, max(kafka_offset) as last_offset
    from records
    group by batch, kafka_partition
)

select count(*) as places
from taken
left join batches on batches.batch = taken.batch and batches.kafka_partition = taken.kafka_partition
where
    batches.batch is null
    or taken.first_offset < batches.start_offset
    or taken.last_offset >= batches.end_offset
