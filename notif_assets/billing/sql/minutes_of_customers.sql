-- The minutes of some customers.
-- Inputs: minutes (of minute_aggregates), customers (customer_id).
select customer_id, customer_name, channel, notifications, last_event
from minutes
semi join customers on customers.customer_id = minutes.customer_id
