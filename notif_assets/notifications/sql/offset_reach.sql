-- The offsets within which all ranges of some batches lie, whatever the partition; [0, 0) for no batches.
-- Input: batches (ingest_batches).
select
    coalesce(min(start_offset), 0) as first_offset,
    coalesce(max(end_offset), 0) as end_offset
from batches
