"""The serving copy: tables of the lake in PostgreSQL, for Power BI, Superset, Grafana and whatever speaks SQL."""
