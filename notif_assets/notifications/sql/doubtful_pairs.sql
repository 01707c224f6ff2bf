-- What the panel shows of each customer of whom a dedup batch took the newest message of a channel: the pair may be
-- gone, or be older than the panel says, and the customer's newest name may be another.
-- Inputs: panel (customer_panel), removed (messages taken out).
with doubtful as (
    select distinct panel.customer_id
    from panel
    inner join removed on removed.customer_id = panel.customer_id and removed.channel = panel.channel
    where panel.last_event is null or removed.event_datetime >= panel.last_event
)

select panel.customer_id, panel.channel, panel.last_event
from panel
semi join doubtful on doubtful.customer_id = panel.customer_id
