-- When the messages happened that some batches added to notifications or took out of it.
-- Inputs: added (notifications of the batches), removed (events taken out).
select event_datetime from added
union all
select event_datetime from removed
