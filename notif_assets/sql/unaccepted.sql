-- The records of one batch that did not become notifications.
-- Inputs: records (the batch's rows of raw_notifications), accepted (its rows of notifications).
-- Places first, whole records after: few are left, and the rest need not be read.
with places as (
    select kafka_partition, kafka_offset from records
    except
    select kafka_partition, kafka_offset from accepted
)

select records.*
from records
semi join places using (kafka_partition, kafka_offset)
