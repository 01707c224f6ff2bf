-- The lines of one day's bill. amount = notifications × unit_price, rounded half up to cents once per line: half a cent
-- twice is two cents, as each line is a sum of money of its own.
-- Inputs: counts (the day's messages per customer and channel), unit_prices (exactly one price for each).
select
    cast($billing_date as date) as billing_date,
    counts.customer_id,
    counts.customer_name,
    counts.channel,
    counts.notifications,
    cast(unit_prices.unit_price as decimal(18, 6)) as unit_price,
    cast(round(counts.notifications * unit_prices.unit_price, 2) as decimal(18, 2)) as amount,
    unit_prices.currency,
    $price_version as price_version,
    $status as status,
    cast($through_batch as bigint) as through_batch,
    $run_id as run_id,
    cast($computed_at as timestamptz) as computed_at
from counts
inner join unit_prices on unit_prices.customer_id = counts.customer_id and unit_prices.channel = counts.channel
order by counts.customer_id, counts.channel
