-- The invoices after an import: the imported ones, and of the earlier ones those whose customer, account and month
-- the import doesn't contain.
-- Inputs: earlier, imported. `not exists`, not `except` or a merge on keys: an account may have several invoices a
-- month, equal ones too, and all of them count.
select customer, account, month, invoice, source_file, source_line
from imported

union all

select e.customer, e.account, e.month, e.invoice, e.source_file, e.source_line
from earlier as e
where not exists (
    select 1
    from imported as i
    where i.customer = e.customer and i.account = e.account and i.month = e.month
)
