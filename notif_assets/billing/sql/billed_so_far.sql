-- Everything already billed for one day, per customer, channel and currency, with the newest price in that currency.
-- Inputs: lines (daily_billing of the day), adjustments (billing_adjustments of the day, each with its currency).
with entries as (
    select customer_id, customer_name, channel, currency, notifications, amount, unit_price, price_version, computed_at
    from lines
    union all
    select
        customer_id,
        customer_name,
        channel,
        currency,
        notifications_delta as notifications,
        amount_delta as amount,
        unit_price,
        price_version,
        created_at as computed_at
    from adjustments
)

select
    customer_id,
    max(customer_name) as customer_name,
    channel,
    currency,
    cast(sum(notifications) as bigint) as notifications,
    cast(sum(amount) as decimal(18, 2)) as amount,
    max_by(unit_price, computed_at) as unit_price,
    max_by(price_version, computed_at) as price_version,
    count(*) as entries
from entries
group by customer_id, channel, currency
