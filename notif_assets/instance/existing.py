"""The Dagster instance of a deployment, for what only looks at it.

Belongs here: whether there is one, and opening it. Doesn't: naming it (location.py), running jobs on it (runs.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from notif_assets.instance.location import store


@contextmanager
def existing_instance() -> Iterator[dg.DagsterInstance | None]:
    """The instance that this process's environment names. None, and no file is created, where Dagster never ran.

    A storage in a database is always there: whoever set it up named it, and Dagster makes its tables when it is opened.
    """
    if "DAGSTER_HOME" not in os.environ or "DAGSTER_STORE" not in os.environ:
        yield None
        return
    ref = InstanceRef.from_dir(os.environ["DAGSTER_HOME"])
    in_files = ref.storage_data is None or ref.storage_data.class_name == DagsterSqliteStorage.__name__
    if in_files and not (store() / "history").exists():
        yield None
        return
    with dg.DagsterInstance.from_ref(ref) as instance:
        yield instance
