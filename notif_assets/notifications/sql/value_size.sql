-- The mean size of a record's value, to plan batches of about NOTIF_BATCH_BYTES.
-- Input: records, rows of raw_notifications.
select avg(octet_length(value)) as bytes
from records
