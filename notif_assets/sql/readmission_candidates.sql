-- Rejected messages to be tried again, as the records they came from.
-- Input: rejected (rejected_notifications).
select batch, topic, kafka_partition, kafka_offset, kafka_timestamp, value, ingested_at
from rejected
where reason = $reason
