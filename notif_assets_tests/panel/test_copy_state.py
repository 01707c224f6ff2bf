"""How far the serving copy is, as Prometheus and `status` are told: the lake's own moment, or that it can't be read."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr

from notif_assets.notifications.ledger import complete_until
from notif_assets.panel import metrics
from notif_assets.panel.copy_state import ServingCopy
from notif_assets.serving.copying import CopyState, read_state, serve
from notif_assets_tests.cli.deployment import ROOT, until
from notif_assets_tests.maintenance.world import World
from notif_assets_tests.postgres import a_server


def samples(state: CopyState) -> dict[str, float]:
    """The numbers that a state comes to."""
    return {name: value for name, _, value in metrics._of_copy(state)}


def test_the_copy_is_as_far_as_the_lake_was_when_it_was_copied(tmp_path: Path) -> None:
    with a_server() as server, ThreadPoolExecutor(1) as executor:
        world = World(tmp_path / "lake", serving_url=SecretStr(server.new_database()))
        copy = ServingCopy(executor, world.settings)
        assert copy.last() is None
        assert until(copy.last, "the first reading").problem, "it was not made yet"

        serve(world.lake, world.settings)
        assert (read_state(world.settings).problem, read_state(world.settings).counted_until) == ("", None)
        world.send(5, datetime.now(UTC) - timedelta(hours=1))
        world.ingest()
        serve(world.lake, world.settings)
        counted = complete_until(world.lake, world.lake.table("customer_panel").watermark)
        assert counted is not None
        world.send(5, datetime.now(UTC))
        world.ingest()

        state = read_state(world.settings)
        assert (state.problem, state.counted_until) == ("", counted)
        told = samples(state)
        assert told["notif_copy_readable"] == 1
        assert told["notif_copy_counted_until_timestamp_seconds"] == counted.timestamp()

        server.stop()
        assert samples(read_state(world.settings))["notif_copy_readable"] == 0


def test_where_there_is_no_copy_nobody_asks_for_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        assert ServingCopy(executor, World(tmp_path / "lake").settings).last() is None
        assert executor.submit(lambda: 1).result() == 1


def test_the_panel_learns_of_the_copy_without_pandas_and_dagster() -> None:
    loaded = "import sys, notif_assets.panel.copy_state; print(*{'dagster', 'pandas', 'psycopg'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
