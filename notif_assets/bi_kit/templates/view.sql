-- {{ view.name }}
-- {{ view.meaning }}
select
{% for column in view.columns %}
    "{{ column.name }}"{{ "" if loop.last else "," }} -- {{ column.meaning }}
{% endfor %}
from {{ schema }}.{{ view.name }}
