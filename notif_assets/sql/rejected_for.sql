-- Rejected messages with one reason, whole.
-- Input: rejected (rejected_notifications).
select *
from rejected
where reason = $reason
