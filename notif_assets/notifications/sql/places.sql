-- Where messages lie in Kafka.
-- Input: placed (notifications, or another table with these columns).
select kafka_partition, kafka_offset
from placed
