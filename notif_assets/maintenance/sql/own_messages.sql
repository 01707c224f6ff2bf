-- Those of some message ids that messages of one customer have.
-- Inputs: asked (message_id), messages (notifications of the customer).
select distinct asked.message_id
from asked
inner join messages on messages.message_id = asked.message_id
