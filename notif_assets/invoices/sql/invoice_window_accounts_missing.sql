-- A row without averages for every account that has an invoice and no row in one of these months: its invoices lie
-- outside the month's windows, or the month would have been computed.
-- Inputs: months, averages, invoices.
with accounts as (
    select distinct customer, account
    from invoices
)

select
    m.reference_month,
    a.customer,
    a.account,
    cast(null as decimal(18, 2)) as avg_invoices_last_3_months,
    cast(null as decimal(18, 2)) as avg_invoices_last_6_months
from months as m
cross join accounts as a
where not exists (
    select 1
    from averages as w
    where w.reference_month = m.reference_month and w.customer = a.customer and w.account = a.account
)
