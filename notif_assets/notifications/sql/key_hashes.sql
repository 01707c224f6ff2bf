-- The hash of each message's key (customer_id, message_id), by row.
-- Input: keys (row, customer_id, message_id). Comparable within one version of the engine only.
select "row", cast(hash(customer_id, message_id) >> 1 as bigint) as key_hash
from keys
