-- How many messages each customer has, in order of the customers.
-- Input: stored (notifications).
select customer_id, count(*) as row_count
from stored
group by customer_id
order by customer_id
