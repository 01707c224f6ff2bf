-- One row per account: its average invoice over the 3 and the 6 calendar months before $reference_month.
-- Input: invoices. A window with a month missing has no average (null); several invoices in a month are added.
-- A month of which a line was set aside is missing too: its sum would look whole.
-- Cents as integers: `/` on decimals gives DOUBLE in DuckDB and rounds in Spark; `//` truncates towards zero in both,
-- as the expected output does (124250 / 3 = 41416.666… is 41416.66).
with by_month as (
    select
        customer,
        account,
        month,
        cast(sum(invoice) * 100 as bigint) as cents,
        case when count(set_aside) = 0 then 1 end as is_whole
    from invoices
    group by customer, account, month
),

by_account as (
    select
        customer,
        account,
        count(case when month >= $start_3 and month < $reference_month then is_whole end) as months_3,
        count(case when month >= $start_6 and month < $reference_month then is_whole end) as months_6,
        cast(sum(case when month >= $start_3 and month < $reference_month then cents end) as bigint) as cents_3,
        cast(sum(case when month >= $start_6 and month < $reference_month then cents end) as bigint) as cents_6
    from by_month
    group by customer, account
)

select
    $reference_month as reference_month,
    customer,
    account,
    cast(case when months_3 = 3 then cents_3 // 3 end * cast(0.01 as decimal(3, 2)) as decimal(18, 2)) as avg_invoices_last_3_months,
    cast(case when months_6 = 6 then cents_6 // 6 end * cast(0.01 as decimal(3, 2)) as decimal(18, 2)) as avg_invoices_last_6_months
from by_account
order by customer, account
