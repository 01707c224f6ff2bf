-- The offsets of each partition that some batches reach: from the first to the end, exclusive.
-- Input: batches (ingest_batches).
select kafka_partition, min(start_offset) as first_offset, max(end_offset) as end_offset
from batches
group by kafka_partition
