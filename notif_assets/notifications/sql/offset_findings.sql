-- Offsets that are not exactly once where they belong, per batch and partition.
-- Inputs: batches (ingest_batches), records (raw_notifications) of the batches looked at; accepted (notifications) and
-- rejected (rejected_notifications) of these batches and all later ones, as a later batch may have moved a row.
-- What landed is narrowed to what was taken before it is grouped, so that memory follows the batches looked at.
with landed as (
    select kafka_partition, kafka_offset from accepted
    union all
    select kafka_partition, kafka_offset from rejected
),

taken as (
    select batch, kafka_partition, kafka_offset, count(*) as times
    from records
    group by batch, kafka_partition, kafka_offset
),

landings as (
    select landed.kafka_partition, landed.kafka_offset, count(*) as times
    from landed
    where exists (
        select 1 from taken
        where taken.kafka_partition = landed.kafka_partition and taken.kafka_offset = landed.kafka_offset
    )
    group by landed.kafka_partition, landed.kafka_offset
),

judged as (
    select
        taken.batch,
        taken.kafka_partition,
        taken.kafka_offset,
        case
            when taken.times > 1 then 'are more than once in raw_notifications'
            when
                batches.batch is null
                or taken.kafka_offset < batches.start_offset
                or taken.kafka_offset >= batches.end_offset
                then 'lie outside the range that the ledger gives the batch'
            when landings.times is null then 'are neither in notifications nor in rejected_notifications'
            when landings.times > 1 then 'are in notifications and rejected_notifications, or twice in one of them'
        end as finding
    from taken
    left join batches on batches.batch = taken.batch and batches.kafka_partition = taken.kafka_partition
    left join landings
        on landings.kafka_partition = taken.kafka_partition and landings.kafka_offset = taken.kafka_offset
)

select
    batch,
    kafka_partition,
    finding,
    finding like 'are neither%' or finding like 'are in notifications%' as silver_is_wrong,
    count(*) as places,
    min(kafka_offset) as first_offset
from judged
where finding is not null
group by batch, kafka_partition, finding
order by batch, kafka_partition, finding
