-- The months of which files have rows, or a line that was set aside, and how many rows.
-- Inputs: invoices; forgotten, the names of the files.
select i.month, count(case when f.source_file is not null then 1 end) as "rows"
from invoices as i
left join forgotten as f on i.source_file = f.source_file
left join forgotten as m on i.set_aside = m.source_file
where f.source_file is not null or m.source_file is not null
group by i.month
order by i.month
