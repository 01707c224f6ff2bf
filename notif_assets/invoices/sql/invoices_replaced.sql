-- How many rows of which file an import replaces, by the file that does: rows of another file, and of the file itself
-- those whose amount it has no more.
-- Inputs: earlier; imported, with the place of each row's file.
with taken as (
    select customer, account, month, max(place) as place, max_by(source_file, place) as source_file
    from imported
    group by customer, account, month
),

replaced as (
    select
        t.source_file as by_file,
        e.source_file as of_file,
        t.customer,
        t.account,
        t.month,
        t.place,
        e.invoice
    from earlier as e
    inner join taken as t
        on trim(e.customer, $blank_characters) = t.customer
            and trim(e.account, $blank_characters) = t.account
            and e.month = t.month

    union all

    select t.source_file, i.source_file, t.customer, t.account, t.month, t.place, i.invoice
    from imported as i
    inner join taken as t
        on i.customer = t.customer and i.account = t.account and i.month = t.month and i.place < t.place
)

select r.by_file as "by", r.of_file as "of", count(*) as "rows"
from replaced as r
where
    r.by_file <> r.of_file
    or not exists (
        select 1
        from imported as i
        where
            i.customer = r.customer
            and i.account = r.account
            and i.month = r.month
            and i.place = r.place
            and i.invoice = r.invoice
    )
group by r.by_file, r.of_file
order by r.by_file, r.of_file
