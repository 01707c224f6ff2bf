-- The messages of one batch that are not the first of their key, as far as can be seen on arrival.
-- Inputs: arrived (keys of the batch's valid messages, each with the window in which an earlier message with its key
-- makes it a duplicate), stored (messages accepted before, of all the hours that a window touches).
-- Keys are compared as two columns: glued into one string, ('1', '23') and ('12', '3') would be the same message.
with repeated as (
    select customer_id, message_id
    from arrived
    group by customer_id, message_id
    having count(*) > 1
),

repeats as (
    select
        "row",
        row_number() over (
            partition by customer_id, message_id, window_from order by kafka_partition, kafka_offset
        ) as occurrence
    from arrived
    semi join repeated using (customer_id, message_id)
),

known as (
    select arrived."row"
    from arrived
    inner join stored
        on stored.customer_id = arrived.customer_id and stored.message_id = arrived.message_id
    where stored.event_datetime >= arrived.window_from and stored.event_datetime < arrived.window_to
)

select "row" from repeats where occurrence > 1
union
select "row" from known
