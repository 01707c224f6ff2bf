"""From the topic to the panel: what each batch does to each table. No Dagster; the assets call these functions."""
