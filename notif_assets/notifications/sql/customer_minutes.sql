-- One customer's notifications per minute and channel.
-- Input: minutes (minute_aggregates of the customer and the period asked).
select minute, channel, notifications
from minutes
where $channel is null or lower(channel) = lower($channel)
order by minute, channel
