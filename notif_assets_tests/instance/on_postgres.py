"""A DAGSTER_HOME whose storage is PostgreSQL, by deploy/dagster.postgres.yaml as it is.

Belongs here: the folder and the variables. Doesn't: the server (postgres.py of the tests), what runs on it.
"""

import shutil
from pathlib import Path

from notif_assets_tests.cli.deployment import ROOT

EXAMPLE = ROOT / "deploy" / "dagster.postgres.yaml"


def on_postgres(home: Path, url: str) -> dict[str, str]:
    """Makes the folder, as the example says; gives the variables that name it and the database."""
    home.mkdir()
    shutil.copy(EXAMPLE, home / "dagster.yaml")
    return {
        "DAGSTER_HOME": str(home),
        "DAGSTER_POSTGRES_URL": url.replace("postgresql://", "postgresql+psycopg2://"),
    }
