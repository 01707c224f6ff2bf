-- The minutes that hold something of the given rows, once each.
-- Input: minutes (of minute_aggregates).
select distinct minute
from minutes
order by minute
