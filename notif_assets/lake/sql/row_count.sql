-- How many rows there are.
-- Input: counted.
select count(*) as row_count
from counted
