-- The rows of some files of raw_notifications or rejected_notifications, in the order of arrival, by which they are read.
-- Input: files.
select *
from files
order by batch, kafka_partition, kafka_offset
