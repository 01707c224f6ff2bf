-- One row per session: its first and last non-blank answer, and the last non-blank answer to each question, in the
-- order in which the questions were first answered.
-- Input: answers, of one day or of any hours; answer_date is the newest day of the session among them. $customer and
-- $flow may be null: all. A value stays as received; $blank_characters decide only whether it is blank.
-- An answer that was set aside counts like any other, its value is not known (null): the one before it is not the last.
-- Where its time is not known (every reason but value_not_text) it comes last, and is neither first nor last moment.
-- Time alone doesn't order answers (ties are common): the file's hour and the place in the file do.
-- The list of answers is ordered by a window over the whole session, since Spark's array_agg takes no order itself.
with given as (
    select
        a.*,
        case when a.set_aside is null or a.set_aside = 'value_not_text' then 0 else 1 end as is_timeless
    from answers as a
    where (a.set_aside is not null or trim(a.value, $blank_characters) <> '')
        and ($customer is null or a.customer = $customer)
        and ($flow is null or a.flow = $flow)
),

ranked as (
    select
        a.answer_date,
        a.customer,
        a.flow,
        a.session,
        case when a.is_timeless = 0 then a.timestamp end as timestamp,
        a.key,
        case when a.set_aside is null then a.value end as value,
        row_number() over (
            partition by a.customer, a.flow, a.session
            order by a.is_timeless, a.timestamp, a.answer_date, a.hour, a.position
        ) as place,
        row_number() over (
            partition by a.customer, a.flow, a.session, a.key
            order by a.is_timeless desc, a.timestamp desc, a.answer_date desc, a.hour desc, a.position desc
        ) as from_last
    from given as a
),

by_key as (
    select
        customer,
        flow,
        session,
        key,
        max(answer_date) as answer_date,
        min(timestamp) as first_answer_dt,
        max(timestamp) as last_answer_dt,
        max(case when from_last = 1 then value end) as value,
        min(place) as place
    from ranked
    group by customer, flow, session, key
),

by_session as (
    select
        max(answer_date) over (partition by customer, flow, session) as answer_date,
        customer,
        flow,
        session,
        min(first_answer_dt) over (partition by customer, flow, session) as first_answer_dt,
        max(last_answer_dt) over (partition by customer, flow, session) as last_answer_dt,
        array_agg({'key': key, 'value': value}) over (
            partition by customer, flow, session
            order by place
            rows between unbounded preceding and unbounded following
        ) as entries,
        row_number() over (partition by customer, flow, session order by place) as number
    from by_key
)

select answer_date, customer, flow, session, first_answer_dt, last_answer_dt, map_from_entries(entries) as answers
from by_session
where number = 1 and first_answer_dt is not null
order by customer, flow, session
