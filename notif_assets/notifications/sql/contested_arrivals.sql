-- The messages of a batch whose key still comes more than once in it, in arrival order.
-- Inputs: arrived (keys of the batch's valid messages, each with its window), duplicates (rows known as such already).
with remaining as (
    select *
    from arrived
    anti join duplicates using ("row")
),

repeated as (
    select customer_id, message_id
    from remaining
    group by customer_id, message_id
    having count(*) > 1
)

select "row", customer_id, message_id, event_datetime, window_from, window_to
from remaining
semi join repeated using (customer_id, message_id)
order by kafka_partition, kafka_offset
