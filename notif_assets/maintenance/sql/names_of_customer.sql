-- Every name that rows bear.
-- Input: named, rows of any table with customer_name.
select distinct customer_name
from named
