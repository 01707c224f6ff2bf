-- The price of each customer and channel on $day: the customer's own before everyone's, and how many there are of the
-- better kind. Anything but exactly one is for people to decide.
-- Inputs: pairs (customer_id, channel), prices (one price list).
with candidates as (
    select
        pairs.customer_id,
        pairs.channel,
        prices.unit_price,
        prices.currency,
        case when prices.customer_id is null then 1 else 0 end as generality
    from (select distinct customer_id, channel from pairs) as pairs
    left join prices
        on
            prices.channel = pairs.channel
            and (prices.customer_id is null or prices.customer_id = pairs.customer_id)
            and (prices.valid_from is null or prices.valid_from <= cast($day as date))
            and (prices.valid_to is null or prices.valid_to > cast($day as date))
),

ranked as (
    select *, min(generality) over (partition by customer_id, channel) as best
    from candidates
)

select
    customer_id,
    channel,
    min(unit_price) as unit_price,
    min(currency) as currency,
    count(unit_price) as prices_found
from ranked
where generality = best
group by customer_id, channel
order by customer_id, channel
