-- Every known customer and channel, with the messages of the billing day $billing_date so far.
-- Inputs: known (customer_id, customer_name, channel, last_event of the panel before and of all minutes changed since),
-- today (minute_aggregates of the billing day, or other counts that add up to the same).
with pairs as (
    select customer_id, channel, max(last_event) as last_event
    from known
    group by customer_id, channel
),

newest as (
    select customer_id, max(last_event) as last_event
    from known
    group by customer_id
),

names as (
    select known.customer_id, max(known.customer_name) as customer_name
    from known
    inner join newest on newest.customer_id = known.customer_id and newest.last_event = known.last_event
    group by known.customer_id
),

counts as (
    select customer_id, channel, cast(sum(notifications) as bigint) as notifications
    from today
    group by customer_id, channel
)

select
    cast($billing_date as date) as billing_date,
    pairs.customer_id,
    names.customer_name,
    pairs.channel,
    coalesce(counts.notifications, 0) as notifications,
    pairs.last_event,
    cast($updated_at as timestamptz) as updated_at
from pairs
inner join names on names.customer_id = pairs.customer_id
left join counts on counts.customer_id = pairs.customer_id and counts.channel = pairs.channel
order by pairs.customer_id, pairs.channel
