-- Messages that are more than once in their hour, counted by customer, among one bucket of keys.
-- Inputs: new (messages of new batches), before (messages of the batches before them, in the same hours). Of those only
-- the keys of new ones are grouped: an hour that fills holds millions.
with fresh as (
    select customer_id, message_id, event_date, event_hour
    from new
    where hash(customer_id, message_id) % $buckets = $bucket
),

known as (
    select before.customer_id, before.message_id, before.event_date, before.event_hour
    from before
    semi join fresh
        on
            fresh.customer_id = before.customer_id
            and fresh.message_id = before.message_id
            and fresh.event_date = before.event_date
            and fresh.event_hour = before.event_hour
),

repeated as (
    select customer_id, message_id, event_date, event_hour
    from (select * from fresh union all select * from known)
    group by customer_id, message_id, event_date, event_hour
    having count(*) > 1
)

select customer_id, count(*) as messages
from repeated
group by customer_id
order by customer_id
