-- Rows of raw_notifications in the order of arrival, each with whether it was rejected for differing from the first one.
-- Inputs: records (raw_notifications), conflicts (rejected_notifications with the reason duplicate_conflict).
with places as (
    select distinct kafka_partition, kafka_offset
    from conflicts
)

select records.*, places.kafka_offset is not null as conflicts
from records
left join places on places.kafka_partition = records.kafka_partition and places.kafka_offset = records.kafka_offset
order by records.batch, records.kafka_partition, records.kafka_offset
