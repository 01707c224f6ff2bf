-- The invoices after an import: the imported ones, and of the earlier ones those whose customer, account and month
-- the import doesn't contain. Of several files that have the same ones, the last holds.
-- Inputs: earlier; imported, with the place of each row's file; gaps, the customers, accounts and months of lines that
-- were set aside. A row of these is marked with the file, unless a later file replaces it. `not exists`, not `except` or
-- a merge on keys: an account may have several invoices a month, equal ones too, and all of them count. Blanks around
-- names don't count; earlier rows may have some.
with taken as (
    select customer, account, month, max(place) as place
    from imported
    group by customer, account, month
),

marked as (
    select customer, account, month, max(place) as place, max_by(source_file, place) as source_file
    from gaps
    group by customer, account, month
),

after as (
    select
        i.customer,
        i.account,
        i.month,
        i.invoice,
        i.source_file,
        i.source_line,
        case when m.place >= i.place then m.source_file end as set_aside
    from imported as i
    inner join taken as t
        on i.customer = t.customer and i.account = t.account and i.month = t.month and i.place = t.place
    left join marked as m on i.customer = m.customer and i.account = m.account and i.month = m.month

    union all

    select
        e.customer,
        e.account,
        e.month,
        e.invoice,
        e.source_file,
        e.source_line,
        coalesce(m.source_file, e.set_aside) as set_aside
    from earlier as e
    left join marked as m
        on trim(e.customer, $blank_characters) = m.customer
            and trim(e.account, $blank_characters) = m.account
            and e.month = m.month
    where not exists (
        select 1
        from taken as t
        where
            t.customer = trim(e.customer, $blank_characters)
            and t.account = trim(e.account, $blank_characters)
            and t.month = e.month
    )
)

select customer, account, month, invoice, source_file, source_line, set_aside
from after
order by month, customer, account, source_file, source_line
