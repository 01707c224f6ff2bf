-- Each flow's questions, in the order of their first non-blank answer: the columns of the flow's table.
-- Input: answers, of any hours. $customer and $flow may be null: all; a customer's own table has no other's questions.
-- Time alone doesn't order answers (ties are common): the file's hour and the place in the file do.
with ranked as (
    select
        a.flow,
        a.key,
        a.timestamp,
        a.answer_date,
        a.hour,
        a.position,
        row_number() over (
            partition by a.flow, a.key
            order by a.timestamp, a.answer_date, a.hour, a.position
        ) as number
    from answers as a
    where a.set_aside is null
        and trim(a.value, $blank_characters) <> ''
        and ($customer is null or a.customer = $customer)
        and ($flow is null or a.flow = $flow)
)

select flow, key
from ranked
where number = 1
order by flow, timestamp, answer_date, hour, position
