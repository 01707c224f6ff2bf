-- Cobrança do mês
-- What is owed for a month: lines and adjustments of each customer, each currency for itself.
-- Variables: month (date, any day of it, optional: all), customer_id (number, optional)
select
    date_trunc('month', billing_date)::date as month, customer_id, max(customer_name) as customer_name, currency,
    sum(notifications) as notifications,
    coalesce(sum(amount) filter (where kind = 'line'), 0) as lines,
    coalesce(sum(amount) filter (where kind = 'adjustment'), 0) as adjustments,
    sum(amount) as owed
from (
-- What is owed: the lines of each day, and the adjustments that correct them.
select
    billing_date, customer_id, customer_name, channel, 'line' as kind, status as reason,
    notifications, amount, currency
from bi.daily_billing
union all
select
    billing_date, customer_id, customer_name, channel, 'adjustment' as kind, reason,
    notifications_delta as notifications, amount_delta as amount, currency
from bi.billing_adjustments
) as bills
where true
    [[and date_trunc('month', billing_date) = date_trunc('month', {{month}}::date)]]
    [[and customer_id = {{customer_id}}]]
group by 1, customer_id, currency
order by 1, owed desc, customer_id
