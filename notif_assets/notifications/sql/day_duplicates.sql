-- The messages that one day's deduplication removes: of the day $from … $to and the day after it. (Pairs with the day before were settled when that day was deduplicated, or on arrival since.)
-- Inputs: stored (notifications of the day and its neighbours), repeated_hashes (key_hash of every key that is there more
-- than once, and maybe of others), removed (places taken out for earlier days).
-- The first in arrival order counts: a message of the day goes if the day before has its key, else the day and the
-- day after keep only the first of a key.
with candidates as (
    select batch, kafka_partition, kafka_offset, customer_id, message_id, event_datetime
    from stored
    anti join removed using (kafka_partition, kafka_offset)
    where cast(hash(customer_id, message_id) >> 1 as bigint) in (select key_hash from repeated_hashes)
),

repeated as (
    select customer_id, message_id
    from candidates
    group by customer_id, message_id
    having count(*) > 1
),

contested as (
    select candidates.*, event_datetime < $from as is_before, event_datetime >= $from and event_datetime < $to as is_of_day
    from candidates
    semi join repeated using (customer_id, message_id)
),

before as (
    select customer_id, message_id, batch, kafka_partition, kafka_offset
    from (
        select
            *,
            row_number() over (
                partition by customer_id, message_id order by batch, kafka_partition, kafka_offset
            ) as occurrence
        from contested
        where is_before
    ) as numbered
    where occurrence = 1
),

after_the_day_before as (
    select *
    from contested
    where not is_before and not (is_of_day and (customer_id, message_id) in (select customer_id, message_id from before))
),

ranked as (
    select
        *,
        row_number() over (partition by customer_id, message_id order by batch, kafka_partition, kafka_offset) as occurrence
    from after_the_day_before
)

select
    contested.customer_id,
    contested.kafka_partition,
    contested.kafka_offset,
    before.kafka_partition as first_partition,
    before.kafka_offset as first_offset
from contested
inner join before using (customer_id, message_id)
where contested.is_of_day
union all
select
    ranked.customer_id,
    ranked.kafka_partition,
    ranked.kafka_offset,
    firsts.kafka_partition as first_partition,
    firsts.kafka_offset as first_offset
from ranked
inner join ranked as firsts
    on firsts.customer_id = ranked.customer_id and firsts.message_id = ranked.message_id and firsts.occurrence = 1
where ranked.occurrence > 1
