-- Every customer and channel that was billed for a day or is counted in it.
-- Inputs: counts, billed.
select customer_id, channel from counts
union
select customer_id, channel from billed
