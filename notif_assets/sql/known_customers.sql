-- Every customer and channel that the panel shows already or that changed since, with names and newest events.
-- Inputs: panel (customer_panel as it is), minutes (minute_aggregates that changed since).
select customer_id, customer_name, channel, last_event from panel
union all
select customer_id, customer_name, channel, last_event from minutes
