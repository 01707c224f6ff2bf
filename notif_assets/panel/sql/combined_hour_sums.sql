-- Several hours' sums as one per customer and channel, without names, in the columns of day_counts.
-- Input: sums (of hour_sums, several hours).
select
    customer_id,
    '' as customer_name,
    channel,
    cast(sum(notifications) as bigint) as notifications
from sums
group by customer_id, channel
