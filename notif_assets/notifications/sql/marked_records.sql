-- A few records as they are, without keys and values if these are longer than $most_bytes together.
-- Inputs: records, rows of raw_notifications; newest (kafka_partition, kafka_offset), which are wanted.
select
    records.kafka_partition,
    records.kafka_offset,
    records.kafka_timestamp,
    case when octet_length(records.value) + coalesce(octet_length(records.key), 0) <= $most_bytes then records.key end
        as key,
    case when octet_length(records.value) + coalesce(octet_length(records.key), 0) <= $most_bytes then records.value end
        as value
from records
inner join newest
    on records.kafka_partition = newest.kafka_partition and records.kafka_offset = newest.kafka_offset
