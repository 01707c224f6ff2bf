-- The invoices after an import: the imported ones, and of the earlier ones those whose customer, account and month
-- the import doesn't contain.
-- Inputs: earlier, imported. `not exists`, not `except` or a merge on keys: an account may have several invoices a
-- month, equal ones too, and all of them count. Blanks around names don't count; earlier rows may have some.
select customer, account, month, invoice, source_file, source_line
from imported

union all

select e.customer, e.account, e.month, e.invoice, e.source_file, e.source_line
from earlier as e
where not exists (
    select 1
    from imported as i
    where
        i.customer = trim(e.customer, $blank_characters)
        and i.account = trim(e.account, $blank_characters)
        and i.month = e.month
)
