-- The rows of some files of ingest_batches, in the order of its batches, by which it is read.
-- Input: files.
select *
from files
order by batch, planned_at, kafka_partition
