-- How many offsets each batch took, in the order of the batches.
-- Input: batches (ingest_batches).
select batch, sum(end_offset - start_offset) as offsets
from batches
group by batch
order by batch
