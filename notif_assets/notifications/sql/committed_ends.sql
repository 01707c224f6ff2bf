-- How far each partition of the topic is in every table, for a table that holds batches up to $batch.
-- Input: batches (ingest_batches).
select kafka_partition, max(end_offset) as end_offset
from batches
where batch <= $batch
group by kafka_partition
