-- Messages that readmit batches brought back, per customer and channel.
-- Inputs: notifications (of one day), batches (ingest_batches).
with readmit as (
    select distinct batch
    from batches
    where kind = 'readmit'
)

select notifications.customer_id, notifications.channel, count(*) as notifications
from notifications
inner join readmit on readmit.batch = notifications.batch
group by notifications.customer_id, notifications.channel
