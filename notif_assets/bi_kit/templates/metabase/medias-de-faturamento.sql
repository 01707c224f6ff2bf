-- Médias de faturamento
-- The average invoice of each account over the 3 and the 6 months before a reference month.
-- Variables: month (date, any day of it, optional: all)
select reference_month, customer, account, avg_invoices_last_3_months, avg_invoices_last_6_months
from {{ schema }}.invoice_window_averages
where true [[and reference_month = date_trunc('month', {{ variable("month") }}::date)]]
order by 1 desc, 2, 3
