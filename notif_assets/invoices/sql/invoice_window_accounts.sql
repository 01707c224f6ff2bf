-- The months of the averages whose accounts are not those that have an invoice, and how many of theirs have none.
-- Inputs: averages, invoices.
with accounts as (
    select distinct customer, account
    from invoices
),

months as (
    select w.reference_month, count(*) as there, count(a.customer) as known
    from averages as w
    left join accounts as a on w.customer = a.customer and w.account = a.account
    group by w.reference_month
)

select reference_month, there - known as gone
from months
where there <> known or known <> (select count(*) from accounts)
order by reference_month
