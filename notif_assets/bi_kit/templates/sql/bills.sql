-- What is owed: the lines of each day, and the adjustments that correct them.
select
    billing_date, customer_id, customer_name, channel, 'line' as kind, status as reason,
    notifications, amount, currency
from {{ schema }}.daily_billing
union all
select
    billing_date, customer_id, customer_name, channel, 'adjustment' as kind, reason,
    notifications_delta as notifications, amount_delta as amount, currency
from {{ schema }}.billing_adjustments
