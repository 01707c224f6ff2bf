-- Losses that somebody accepted, of records that reached Kafka between $start and $end.
-- Inputs: batches (ingest_batches), losses (ingest_losses). They came after the newest plan that found the partition to
-- end before them (never, if none did), and had come when the first plan found it to end behind them.
with arrivals as (
    select
        losses.batch,
        losses.kafka_partition,
        losses.start_offset,
        losses.end_offset,
        losses.accepted_by,
        max(case when batches.log_end_offset <= losses.start_offset then batches.planned_at end) as came_after,
        min(case when batches.log_end_offset >= losses.end_offset then batches.planned_at end) as came_by
    from losses
    inner join batches on batches.kafka_partition = losses.kafka_partition
    group by
        losses.batch, losses.kafka_partition, losses.start_offset, losses.end_offset, losses.accepted_by
)

select batch, kafka_partition, start_offset, end_offset, accepted_by
from arrivals
where (came_after is null or came_after < $end) and came_by > $start
order by batch, kafka_partition, start_offset
