-- The batches among these that took duplicates out of notifications.
-- Input: batches (ingest_batches).
select distinct batch
from batches
where kind = 'dedup'
order by batch
