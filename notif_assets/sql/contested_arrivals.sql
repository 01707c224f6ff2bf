-- The messages of a batch whose key comes more than once in it, in arrival order.
-- Input: arrivals (the batch's messages that are no duplicates of stored ones, each with its window).
with repeated as (
    select customer_id, message_id
    from arrivals
    group by customer_id, message_id
    having count(*) > 1
)

select customer_id, message_id, event_datetime, kafka_partition, kafka_offset, window_from, window_to
from arrivals
semi join repeated using (customer_id, message_id)
order by kafka_partition, kafka_offset
