-- The instant up to which a table that has committed batches up to $batch holds everything that Kafka held.
-- Input: batches (ingest_batches). Of a partition: the newest planned_at at which Kafka's log ended no later than
-- what is committed, or, while it never got that far, the newest at which it did not exist; of the table: the
-- earliest over its partitions, null if one never got that far.
with committed as (
    select
        kafka_partition,
        min(batch) as first_batch,
        max(case when batch <= $batch then end_offset else 0 end) as end_offset
    from batches
    group by kafka_partition
),

reached as (
    select
        batches.kafka_partition,
        max(case when batches.log_end_offset <= committed.end_offset then batches.planned_at end) as planned_at
    from batches
    inner join committed on committed.kafka_partition = batches.kafka_partition
    group by batches.kafka_partition
),

not_yet_there as (
    select added.kafka_partition, max(batches.planned_at) as planned_at
    from batches
    inner join (select * from committed where first_batch > (select min(batch) from batches)) as added
        on batches.batch < added.first_batch
    group by added.kafka_partition
),

partitions as (
    select coalesce(reached.planned_at, not_yet_there.planned_at) as planned_at
    from reached
    left join not_yet_there on not_yet_there.kafka_partition = reached.kafka_partition
)

select case when count(planned_at) = count(*) then min(planned_at) end as complete_until
from partitions
