-- How many messages were rejected for which reason.
-- Input: rejected (rejected_notifications of the days asked).
select reason, count(*) as messages
from rejected
group by reason
order by messages desc, reason
