-- Where the records of one batch lie in Kafka that did not become notifications.
-- Inputs: records (the batch's rows of raw_notifications), accepted (its rows of notifications).
-- Positions only: few records are left, and the values of the others need not be read.
select kafka_partition, kafka_offset from records
except
select kafka_partition, kafka_offset from accepted
