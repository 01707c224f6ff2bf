-- One batch of the ledger, a row for each partition.
-- Input: batches, the rows of that batch.
select *
from batches
order by kafka_partition
