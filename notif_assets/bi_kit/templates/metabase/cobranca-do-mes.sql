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
{{ bills }}
) as bills
where true
    [[and date_trunc('month', billing_date) = date_trunc('month', {{ variable("month") }}::date)]]
    [[and customer_id = {{ variable("customer_id") }}]]
group by 1, customer_id, currency
order by 1, owed desc, customer_id
