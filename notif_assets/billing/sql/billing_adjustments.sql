-- What a closed day's bill lacks: the recount × price less everything billed so far, per customer and channel, by
-- reason. Rounded cumulatively (what is due after a step less what was due before it), so that lines + adjustments are
-- the recount to the cent, however many adjustments there were before.
-- Amounts of two currencies never meet: what was billed in another currency than the price's is reversed in that one,
-- with its own price and list, and its messages are billed anew in the price's.
-- Inputs: counts (the recount), billed (so far), unit_prices (of every pair), readmitted (messages brought back since).
with totals as (
    select
        customer_id,
        channel,
        max(customer_name) as customer_name,
        sum(notifications) as notifications,
        sum(entries) as entries
    from billed
    group by customer_id, channel
),

pairs as (
    select
        unit_prices.customer_id,
        coalesce(counts.customer_name, totals.customer_name) as customer_name,
        unit_prices.channel,
        unit_prices.currency,
        unit_prices.unit_price,
        coalesce(totals.notifications, 0) as billed,
        coalesce(billed.notifications, 0) as billed_in_currency,
        coalesce(billed.amount, 0) as billed_amount,
        coalesce(totals.entries, 0) as entries,
        coalesce(counts.notifications, 0) as recount,
        greatest(
            0,
            least(
                coalesce(readmitted.notifications, 0), coalesce(counts.notifications, 0) - coalesce(totals.notifications, 0)
            )
        ) as readmitted
    from unit_prices
    left join counts on counts.customer_id = unit_prices.customer_id and counts.channel = unit_prices.channel
    left join totals on totals.customer_id = unit_prices.customer_id and totals.channel = unit_prices.channel
    left join billed
        on
            billed.customer_id = unit_prices.customer_id
            and billed.channel = unit_prices.channel
            and billed.currency = unit_prices.currency
    left join readmitted
        on readmitted.customer_id = unit_prices.customer_id and readmitted.channel = unit_prices.channel
),

steps as (
    select
        *,
        $price_version as price_version,
        round(billed * unit_price, 2) as due_for_billed,
        round((billed + readmitted) * unit_price, 2) as due_with_readmitted,
        round(recount * unit_price, 2) as due
    from pairs
),

reversals as (
    select
        pairs.customer_id,
        pairs.customer_name,
        pairs.channel,
        billed.currency,
        billed.unit_price,
        billed.price_version,
        pairs.entries,
        'repriced' as reason,
        -billed.notifications as notifications_delta,
        -billed.amount as amount_delta
    from pairs
    inner join billed
        on
            billed.customer_id = pairs.customer_id
            and billed.channel = pairs.channel
            and billed.currency <> pairs.currency
),

entries as (
    select
        customer_id,
        customer_name,
        channel,
        currency,
        unit_price,
        price_version,
        entries,
        'repriced' as reason,
        billed - billed_in_currency as notifications_delta,
        due_for_billed - billed_amount as amount_delta
    from steps
    union all
    select * from reversals
    union all
    select
        customer_id,
        customer_name,
        channel,
        currency,
        unit_price,
        price_version,
        entries,
        'readmitted' as reason,
        readmitted as notifications_delta,
        due_with_readmitted - due_for_billed as amount_delta
    from steps
    union all
    select
        customer_id,
        customer_name,
        channel,
        currency,
        unit_price,
        price_version,
        entries,
        case when recount < billed then 'duplicate' else 'late' end as reason,
        recount - billed - readmitted as notifications_delta,
        due - due_with_readmitted as amount_delta
    from steps
)

select
    md5(
        cast($billing_date as varchar) || '/' || cast(customer_id as varchar) || '/' || channel || '/' || reason || '/'
        || currency || '/' || cast(entries as varchar) || '/' || cast($through_batch as varchar)
    ) as adjustment_id,
    cast($billing_date as date) as billing_date,
    customer_id,
    customer_name,
    channel,
    cast(notifications_delta as bigint) as notifications_delta,
    cast(unit_price as decimal(18, 6)) as unit_price,
    cast(amount_delta as decimal(18, 2)) as amount_delta,
    price_version,
    reason,
    cast($through_batch as bigint) as through_batch,
    $run_id as run_id,
    cast($created_at as timestamptz) as created_at
from entries
where notifications_delta <> 0 or amount_delta <> 0
order by customer_id, channel, reason, currency
