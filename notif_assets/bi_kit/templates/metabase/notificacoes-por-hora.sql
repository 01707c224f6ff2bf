-- Notificações por hora
-- Messages counted in each hour, by channel.
-- Variables: customer_id (number, optional), first_day and last_day (date, optional)
select date_trunc('hour', minute_local) as hour_local, channel, sum(notifications) as notifications
from {{ schema }}.minute_aggregates
where true
    [[and customer_id = {{ variable("customer_id") }}]]
    [[and minute_local_date >= {{ variable("first_day") }}]]
    [[and minute_local_date <= {{ variable("last_day") }}]]
group by 1, 2
order by 1, 2
