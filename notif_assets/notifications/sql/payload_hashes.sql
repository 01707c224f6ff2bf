-- What is compared of messages, with their payloads as hashes: the engine would hold the payloads, however long they are.
-- Input: messages (notifications).
select
    batch,
    topic,
    customer_id,
    message_id,
    customer_name,
    channel,
    sha256(payload) as payload_hash,
    kafka_partition,
    kafka_offset,
    kafka_timestamp,
    ingested_at
from messages
