-- Messages that are there more than once, counted by customer, among one bucket of keys.
-- Input: notifications.
with repeated as (
    select customer_id, message_id
    from notifications
    where hash(customer_id, message_id) % $buckets = $bucket
    group by customer_id, message_id
    having count(*) > 1
)

select customer_id, count(*) as messages
from repeated
group by customer_id
order by customer_id
