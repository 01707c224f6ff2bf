-- The months of which there is an invoice.
-- Input: invoices.
select distinct month
from invoices
order by month
