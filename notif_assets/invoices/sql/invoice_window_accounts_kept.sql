-- The averages of accounts that have an invoice.
-- Inputs: averages, invoices.
select w.reference_month, w.customer, w.account, w.avg_invoices_last_3_months, w.avg_invoices_last_6_months
from averages as w
where exists (select 1 from invoices as i where i.customer = w.customer and i.account = w.account)
order by w.reference_month, w.customer, w.account
