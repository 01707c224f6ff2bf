-- The version of the price list that was loaded last.
-- Input: prices.
select price_version
from prices
order by loaded_at desc, price_version
limit 1
