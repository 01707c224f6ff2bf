-- Everything already billed for one day, per customer and channel.
-- Inputs: lines (daily_billing of the day), adjustments (billing_adjustments of the day).
with entries as (
    select customer_id, customer_name, channel, notifications, amount from lines
    union all
    select customer_id, customer_name, channel, notifications_delta as notifications, amount_delta as amount
    from adjustments
)

select
    customer_id,
    max(customer_name) as customer_name,
    channel,
    cast(sum(notifications) as bigint) as notifications,
    cast(sum(amount) as decimal(18, 2)) as amount
from entries
group by customer_id, channel
