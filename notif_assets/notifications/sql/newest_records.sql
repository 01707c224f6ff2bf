-- The offset of the newest record of each partition.
-- Input: records, rows of raw_notifications.
select kafka_partition, max(kafka_offset) as kafka_offset
from records
group by kafka_partition
