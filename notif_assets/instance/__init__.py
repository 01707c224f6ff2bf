"""Everything of Dagster at run time: where its instance is, its processes, old runs, alerts and who is told of them."""
