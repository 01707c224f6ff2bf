-- Where the messages lie in Kafka that were rejected with one reason.
-- Input: rejected (rejected_notifications).
select kafka_partition, kafka_offset
from rejected
where reason = $reason
