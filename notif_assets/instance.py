"""Where the Dagster instance of a deployment is.

Belongs here: naming it, in the environment that Dagster reads. Doesn't: anything that imports Dagster, which not every
process has the memory for (panel/).
"""

import os
from pathlib import Path

from notif_assets.settings import Settings

_ROOT = Path(__file__).resolve().parents[1]


def use_our_dagster(settings: Settings) -> None:
    """Names the Dagster instance in this process's environment, unless it is named there already."""
    if "DAGSTER_HOME" not in os.environ and (_ROOT / "dagster.yaml").exists():
        os.environ["DAGSTER_HOME"] = str(_ROOT)
    os.environ.setdefault("DAGSTER_STORE", str(settings.data.absolute() / "dagster"))


def store() -> Path:
    """The folder of Dagster's storage. Raises KeyError outside a deployment that sets DAGSTER_STORE."""
    return Path(os.environ["DAGSTER_STORE"])
