-- What the closed days of a month come to for each customer, adjustments included, in each currency; sorted so that one
-- customer's rows lie together.
-- Inputs: lines (daily_billing of closed days), adjustments (billing_adjustments of the same days), currencies (of
-- price_currencies).
with billed as (
    select customer_id, currency, notifications, amount
    from lines
    union all
    select
        adjustments.customer_id,
        currencies.currency,
        adjustments.notifications_delta as notifications,
        adjustments.amount_delta as amount
    from adjustments
    left join currencies on currencies.price_version = adjustments.price_version
)

select
    customer_id,
    currency,
    cast(sum(notifications) as bigint) as notifications,
    cast(sum(amount) as decimal(18, 2)) as amount
from billed
group by customer_id, currency
order by customer_id, currency
