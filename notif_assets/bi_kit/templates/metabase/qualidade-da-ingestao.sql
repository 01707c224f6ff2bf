-- Qualidade da ingestão
-- Up to when each table is counted and copied.
select table_name, version, served_at_utc, counted_until_utc
from {{ schema }}.freshness
order by table_name
