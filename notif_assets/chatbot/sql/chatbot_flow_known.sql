-- One row if there is any answer of $customer and $flow (null: of any), none otherwise.
-- Input: answers, all of them.
select a.customer, a.flow
from answers as a
where ($customer is null or a.customer = $customer) and ($flow is null or a.flow = $flow)
limit 1
