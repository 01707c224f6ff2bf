-- The currency of each price list: a list has one.
-- Input: prices.
select price_version, min(currency) as currency
from prices
group by price_version
