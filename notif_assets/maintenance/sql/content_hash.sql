-- How many rows there are and one hash of them all, whatever their order. Equal rows count as often as they are there.
-- Input: hashed. Comparable within one version of the engine only: not to be kept.
select count(*) as row_count, cast(coalesce(sum(hash(hashed)), 0) as varchar) as content_hash
from hashed
