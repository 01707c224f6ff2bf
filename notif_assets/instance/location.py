"""Where the Dagster instance of a deployment is.

Belongs here: setting it in the environment that Dagster reads. Doesn't: anything that imports Dagster, which needs
more memory than the panel's process has.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

from notif_assets.errors import Refusal
from notif_assets.settings import Settings, local_path

_ROOT = Path(__file__).resolve().parents[2]


class InstanceRefused(Refusal):
    """DAGSTER_STORE can't be used; the message says why."""


def set_instance_environment(settings: Settings) -> None:
    """Names the Dagster instance in this process's environment, unless it is named there already.

    Raises InstanceRefused for a DAGSTER_STORE that is no folder.
    """
    if "DAGSTER_HOME" not in os.environ and (_ROOT / "dagster.yaml").exists():
        os.environ["DAGSTER_HOME"] = str(_ROOT)
    try:
        named = local_path(os.environ.get("DAGSTER_STORE") or _store_of_env_file() or str(settings.data / "dagster"))
    except ValueError as error:
        raise InstanceRefused(f"DAGSTER_STORE: {error}") from None
    os.environ["DAGSTER_STORE"] = str(named.absolute())


def _store_of_env_file() -> str | None:
    """DAGSTER_STORE of .env, which `dagster` and `dg` take too; but not where NOTIF_DATA names another folder."""
    return None if "NOTIF_DATA" in os.environ else dotenv_values(".env", verbose=False).get("DAGSTER_STORE")


def store() -> Path:
    """The folder of Dagster's storage. Raises KeyError outside a deployment that sets DAGSTER_STORE."""
    return Path(os.environ["DAGSTER_STORE"])
