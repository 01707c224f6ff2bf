-- The invoices without those of some files, and without the marks of lines that were set aside of them.
-- Inputs: earlier; forgotten, the names of the files.
select
    e.customer,
    e.account,
    e.month,
    e.invoice,
    e.source_file,
    e.source_line,
    case when m.source_file is null then e.set_aside end as set_aside
from earlier as e
left join forgotten as f on e.source_file = f.source_file
left join forgotten as m on e.set_aside = m.source_file
where f.source_file is null
order by e.month, e.customer, e.account, e.source_file, e.source_line
