-- The rows of some files of a table that nobody reads in any order, as they are.
-- Input: files.
select *
from files
