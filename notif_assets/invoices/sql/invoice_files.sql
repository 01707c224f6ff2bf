-- Every file that invoices name: how many rows are of it, and of how many accounts and months it left a part out.
-- Input: invoices.
with named as (
    select source_file, 1 as is_row, null as account_month
    from invoices

    union all

    select distinct set_aside, 0, concat(length(customer), ' ', customer, account, month)
    from invoices
    where set_aside is not null
)

select source_file, cast(sum(is_row) as bigint) as "rows", count(account_month) as in_part
from named
group by source_file
order by source_file
