-- The hash of each message's key (customer_id, message_id), as key_hashes.sql makes it, in no order.
-- Input: stored (notifications).
select cast(hash(customer_id, message_id) >> 1 as bigint) as key_hash
from stored
