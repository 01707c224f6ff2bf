"""How Dagster's state comes to the operator's page.

Belongs here: when it is read again, who waits, what is said if it can't be read. Doesn't: the page (test_pages.py).
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from notif_assets.deployment.status import daemon_at
from notif_assets.panel import dagster_state
from notif_assets.panel.dagster_state import DagsterState, State
from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.instance.on_postgres import on_postgres
from notif_assets_tests.postgres import a_server

NOW = datetime.now(UTC).replace(microsecond=0)


def _read_before(seconds: float) -> State:
    return State("known", datetime.now(UTC) - timedelta(seconds=seconds))


def test_what_is_shown_is_recent_and_only_for_what_is_old_does_somebody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: Queue[State] = Queue()
    monkeypatch.setattr(dagster_state, "_read", readings.get)
    first, second, third = _read_before(60), _read_before(200), _read_before(1)
    with ThreadPoolExecutor(1) as executor:
        state = DagsterState(executor)
        assert state.recent() is None  # nothing is known yet, and nothing is waited for
        readings.put(first)
        assert state() is first  # it was waited for
        assert [state(), state.recent()] == [first, first]  # another reading has begun, one, and nobody waits for it
        readings.put(second)
        executor.submit(int).result()  # behind that reading
        assert state.recent() is None
        readings.put(third)
        assert state() is third  # the second is too old to be shown
        assert state() is third
        assert executor._work_queue.empty()  # and this one too new to be read again


def test_it_is_read_from_postgresql_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.asset
    def one() -> None:
        pass

    @dg.asset_check(asset=one)
    def holds() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="it does not")

    monkeypatch.setenv("DAGSTER_STORE", str(tmp_path / "store"))
    with a_server() as server, ThreadPoolExecutor(1) as executor:
        for name, value in on_postgres(tmp_path / "home", server.create_database("dagster")).items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.get() as instance:
            run = dg.materialize([one, holds], instance=instance).run_id
            instance.add_daemon_heartbeat(DaemonHeartbeat(NOW.timestamp(), "SENSOR", "a daemon", []))
        state = DagsterState(executor)()
        assert state.reading == "known"
        assert [one.run_id for one in state.runs] == [run]
        assert [(one.name, one.asset) for one in state.failing] == [("check holds of one", "one")]
        assert daemon_at() == NOW
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["dagster.yaml"], "it may be read-only"


def test_a_child_reads_it_and_says_if_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(ROOT))
    monkeypatch.setenv("DAGSTER_STORE", str(tmp_path / "store"))
    with ThreadPoolExecutor(1) as executor:
        assert DagsterState(executor)().reading == "absent"
        assert not (tmp_path / "store").exists()
        (tmp_path / "store" / "history").mkdir(parents=True)
        (tmp_path / "store" / "history" / "runs.db").write_text("no database")
        assert DagsterState(executor)().reading == "unreadable"
    assert "Dagster's state can't be read" in caplog.text
