-- Notifications of closed days as they are billed, adjustments included, per day and channel.
-- Inputs: lines (daily_billing of closed days), adjustments (billing_adjustments of the same days).
with billed as (
    select billing_date, channel, notifications from lines
    union all
    select billing_date, channel, notifications_delta as notifications from adjustments
)

select billing_date, channel, cast(sum(notifications) as bigint) as notifications
from billed
group by billing_date, channel
order by billing_date, channel
