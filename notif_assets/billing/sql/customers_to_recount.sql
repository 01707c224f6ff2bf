-- The customers of a closed day of whom its bill may lack something: a minute of theirs holds messages that the bill of
-- its customer and channel does not count, or the price list gives another amount, or currency, than was billed.
-- Inputs: minutes (of minute_aggregates of the day), lines (daily_billing of the day), adjustments (billing_adjustments
-- of the day, each with its currency), unit_prices (of every pair that was billed, by the list in force).
with entries as (
    select customer_id, channel, currency, notifications, amount, through_batch from lines
    union all
    select
        customer_id,
        channel,
        currency,
        notifications_delta as notifications,
        amount_delta as amount,
        through_batch
    from adjustments
),

billed as (
    select customer_id, channel, currency, sum(notifications) as notifications, sum(amount) as amount
    from entries
    group by customer_id, channel, currency
),

counted as (
    select customer_id, channel, max(through_batch) as through_batch
    from entries
    group by customer_id, channel
)

select minutes.customer_id
from minutes
left join counted on counted.customer_id = minutes.customer_id and counted.channel = minutes.channel
where minutes.batch > coalesce(counted.through_batch, 0)
union
select billed.customer_id
from billed
inner join unit_prices on unit_prices.customer_id = billed.customer_id and unit_prices.channel = billed.channel
where
    unit_prices.prices_found <> 1
    or case
        when billed.currency = unit_prices.currency
            then round(billed.notifications * unit_prices.unit_price, 2) <> billed.amount
        else billed.notifications <> 0 or billed.amount <> 0
    end
