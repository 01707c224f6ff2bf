-- What of a record the verdict on it needs, and what of it notifications keeps.
-- Input: records (raw_notifications).
select batch, topic, kafka_partition, kafka_offset, kafka_timestamp, value, ingested_at
from records
