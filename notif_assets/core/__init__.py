"""Pure functions: no Dagster, no I/O, no clock."""
