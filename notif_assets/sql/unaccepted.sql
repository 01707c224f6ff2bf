-- The records of one batch that did not become notifications.
-- Inputs: records (the batch's rows of raw_notifications), accepted (its rows of notifications).
select *
from records
anti join accepted using (kafka_partition, kafka_offset)
