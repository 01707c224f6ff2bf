-- The instant up to which a table that has committed batches up to $batch holds everything that Kafka held.
-- Input: batches (ingest_batches). Of a partition: the newest planned_at at which Kafka's log ended no later than
-- what is committed; of the table: the earliest over its partitions, null if one never got that far.
with committed as (
    select kafka_partition, max(end_offset) as end_offset
    from batches
    where batch <= $batch
    group by kafka_partition
),

reached as (
    select
        batches.kafka_partition,
        max(case when batches.log_end_offset <= committed.end_offset then batches.planned_at end) as planned_at
    from batches
    inner join committed on committed.kafka_partition = batches.kafka_partition
    group by batches.kafka_partition
)

select case when count(planned_at) = count(*) then min(planned_at) end as complete_until
from reached
