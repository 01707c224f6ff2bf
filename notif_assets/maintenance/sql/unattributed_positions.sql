-- Where the rejected messages lie in Kafka that have no customer_id as it must be.
-- Input: rejected (rejected_notifications).
select distinct kafka_partition, kafka_offset
from rejected
where customer_id is null
