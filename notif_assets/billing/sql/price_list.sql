-- The prices of one version; a list that was loaded twice (A, B, then A again) counts once.
-- Input: prices.
with loaded as (
    select *, max(loaded_at) over () as last_loaded_at
    from prices
    where price_version = $price_version
)

select price_version, customer_id, channel, unit_price, currency, valid_from, valid_to, loaded_at
from loaded
where loaded_at = last_loaded_at
