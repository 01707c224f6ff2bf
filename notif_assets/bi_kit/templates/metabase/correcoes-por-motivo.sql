-- Correções por motivo
-- Corrections of closed days, by the day when they were written and why, each currency for itself.
select
    created_at_local_date, reason, currency, count(*) as adjustments,
    sum(notifications_delta) as notifications, sum(amount_delta) as amount
from {{ schema }}.billing_adjustments
group by 1, 2, 3
order by 1 desc, 2, 3
