-- Ranges of the ledger that begin before Kafka's log did, as far as nobody accepted the loss.
-- Inputs: batches (ingest_batches), losses (ingest_losses).
with accepted as (
    select batch, kafka_partition, max(end_offset) as end_offset
    from losses
    group by batch, kafka_partition
)

select
    batches.batch,
    batches.kafka_partition,
    greatest(batches.start_offset, coalesce(accepted.end_offset, batches.start_offset)) as start_offset,
    least(batches.end_offset, batches.log_start_offset) as end_offset
from batches
left join accepted on accepted.batch = batches.batch and accepted.kafka_partition = batches.kafka_partition
where
    greatest(batches.start_offset, coalesce(accepted.end_offset, batches.start_offset))
    < least(batches.end_offset, batches.log_start_offset)
order by batches.batch, batches.kafka_partition
