-- Messages that are there more than once, counted by customer.
-- Inputs: notifications, repeated_hashes (key_hash of every key that is there more than once, and maybe of others).
with repeated as (
    select customer_id, message_id
    from notifications
    where cast(hash(customer_id, message_id) >> 1 as bigint) in (select key_hash from repeated_hashes)
    group by customer_id, message_id
    having count(*) > 1
)

select customer_id, count(*) as messages
from repeated
group by customer_id
order by customer_id
