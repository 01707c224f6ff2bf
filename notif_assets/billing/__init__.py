"""From minutes to the bill: prices, lines, closed days and their corrections. No Dagster; the assets call these."""
