let
	Source = PostgreSQL.Database(Server, Database, [CreateNavigationProperties = false]),
{% if not refresh %}
	Rows = Source{[Schema = "{{ schema }}", Item = "{{ view.name }}"]}[Data]
in
	Rows
{% else %}
	Rows = Source{[Schema = "{{ schema }}", Item = "{{ view.name }}"]}[Data],
	Range = Table.SelectRows(Rows, each [{{ refresh.column }}] >= {{ refresh.bound("RangeStart") }} and [{{ refresh.column }}] < {{ refresh.bound("RangeEnd") }})
in
	Range
{% endif %}
