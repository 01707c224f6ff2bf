"""From dropped files to tables and reports. No Dagster; the assets and the command line call these functions."""
