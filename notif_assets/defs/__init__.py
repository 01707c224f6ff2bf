"""Everything of Dagster that is defined: assets, checks, jobs, schedules, sensors, partitions."""
