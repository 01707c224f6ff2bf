-- Notificações de hoje
-- Messages of the current billing day so far, by customer and channel, and up to when they are counted.
-- Variables: customer_id (number, optional)
select customer_id, customer_name, channel, notifications, last_event_local, updated_at_local
from {{ schema }}.customer_panel
where true [[and customer_id = {{ variable("customer_id") }}]]
order by notifications desc, customer_id, channel
