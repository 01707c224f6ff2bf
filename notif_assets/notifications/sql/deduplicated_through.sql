-- The last day that is free of duplicates: deduplication goes in date order, so one date says it.
-- Input: batches (ingest_batches).
select max(dedup_through) as deduplicated_through
from batches
where kind = 'dedup'
