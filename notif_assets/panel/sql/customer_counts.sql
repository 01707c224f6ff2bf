-- Notifications per channel in steps of $step microseconds from $start (microseconds since 1970) on: `minute` is the
-- beginning of the step.
-- Input: minutes (minute_aggregates of the customer and the period asked).
select
    make_timestamptz((epoch_us(minute) - $start) // $step * $step + $start) as minute,
    channel,
    cast(sum(notifications) as bigint) as notifications
from minutes
group by all
order by minute, channel
