"""What Prometheus is told: which numbers there are, that they are right, that each one somebody watches is served."""

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from notif_assets.billing.closed_days import open_days_that_should_be_closed
from notif_assets.instance import health
from notif_assets.panel import metrics
from notif_assets.panel.dagster_state import Failing, Job, State
from notif_assets.panel.measure_lake import bytes_below, measure
from notif_assets.panel.snapshot import Panel
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import ROOT, a_free_port, killed_at_the_end, until
from notif_assets_tests.deploy.tools import needed
from notif_assets_tests.instance.daemon import Daemon
from notif_assets_tests.panel.conftest import Served
from notif_assets_tests.streams import sent

Numbers = dict[tuple[str, tuple[str, ...]], float]


def numbers(text: str) -> Numbers:
    """Each sample by its name and the values of its labels."""
    families = text_string_to_metric_families(text)
    return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


def names(told: Numbers) -> set[str]:
    """The names of the samples."""
    return {name for name, _ in told}


@pytest.fixture(scope="module")
def told(served: Served) -> str:
    """What the panel says once its children have read."""

    def known() -> str:
        text = served.get("/metrics", None).text
        return text if {"notif_job_seconds", "notif_table_bytes"} <= names(numbers(text)) else ""

    text: str = until(known, "the first reading")
    return text


def test_the_numbers_are_those_of_the_lake_and_of_dagster(told: str, served: Served) -> None:
    found = numbers(told)
    ledger, panel = (served.deployment.table(name)[0] for name in ("ingest_batches", "customer_panel"))
    assert (found["notif_batches_planned", ()], found["notif_batches_counted", ()]) == (ledger, panel)
    assert (found["notif_lake_readable", ()], found["notif_dagster_readable", ()]) == (1, 1)
    assert 0 < found["notif_disk_free_bytes", ()] < found["notif_disk_bytes", ()]
    assert found["notif_table_bytes", ("notifications",)] >= bytes_below(served.deployment.lake.root / "notifications")
    assert found["notif_job_failing", ("micro_batch",)] == 0
    steps = {labels[1] for name, labels in found if name == "notif_step_seconds" and labels[0] == "micro_batch"}
    assert {"raw_notifications", "minute_aggregates", "customer_panel"} <= steps
    assert sum(found["notif_step_seconds", ("micro_batch", step)] for step in steps) > 0


def test_every_number_that_is_watched_is_served(told: str) -> None:
    served = {family.name for family in text_string_to_metric_families(told)} | names(numbers(told))
    deploy = ROOT / "deploy"
    watched = {
        name
        for file in (*(deploy / "prometheus").iterdir(), *(deploy / "grafana").rglob("*.json"))
        for name in re.findall(r"\bnotif_[a-z_]+", file.read_text(encoding="utf-8"))
    }
    assert len(watched) > 20
    assert watched - served == set()


def test_every_number_is_served_whether_or_not_it_has_a_value(told: str) -> None:
    assert {one.name for one in metrics.NUMBERS} <= {family.name for family in text_string_to_metric_families(told)}


def test_prometheus_reads_the_panel_and_evaluates_every_alert(served: Served, tmp_path: Path) -> None:
    """With deploy/prometheus as it is, but for its places and how often it asks."""
    folder, port = ROOT / "deploy" / "prometheus", a_free_port()
    config = (folder / "prometheus.yml").read_text().replace("30s", "1s").replace("127.0.0.1:8000", served.url[7:])
    (tmp_path / "prometheus.yml").write_text(config.replace("/etc/prometheus/notif-assets.token", "token"))
    (tmp_path / "token").write_text(served.token(None) + "\n")
    shutil.copy(folder / "alerts.yml", tmp_path)
    command = f"{needed('prometheus', 'prometheus')} --config.file={tmp_path}/prometheus.yml --log.level=error"
    command += f" --storage.tsdb.path={tmp_path}/data --web.listen-address=127.0.0.1:{port}"

    def asked(path: str, **query: str) -> dict[str, Any]:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/{path}", params=query, timeout=10)
        except httpx.TransportError:
            return {}
        return answer.json().get("data", {}) if answer.status_code == 200 else {}

    def read() -> bool:
        return [one["value"][1] for one in asked("query", query='up{job="notif-assets"}').get("result", [])] == ["1"]

    def evaluated() -> list[dict[str, Any]]:
        rules = [rule for group in asked("rules").get("groups", []) for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else []

    with subprocess.Popen(command.split(), cwd=tmp_path) as prometheus, killed_at_the_end(prometheus):
        until(read, "an answer of the panel", 60)
        assert {rule["health"] for rule in until(evaluated, "the alerts", 60)} == {"ok"}
        assert asked("query", query="notif_customers")["result"][0]["value"][1] == "3"


def test_what_fails_has_a_number_with_its_name() -> None:
    now = datetime.now(UTC)
    state = State(
        "known",
        now,
        failing=(Failing("check few of minutes", "minutes", "7 are not", "few", "WARN"),),
        jobs=(
            Job("bills", True, 3, None, None, {}),
            Job("batches", False, 0, now, 4.5, {"read": 1.5}),
        ),
        unfinished={"QUEUED": 2},
        daemons={"SENSOR": now},
    )
    found = {(name, labels): value for name, labels, value in metrics._of_dagster(state)}
    assert found["notif_check_failing", ("minutes", "few", "WARN")] == 1
    assert found["notif_job_failing", ("bills",)] == 1
    assert found["notif_job_failures", ("bills",)] == 3
    assert ("notif_job_seconds", ("bills",)) not in found
    assert found["notif_step_seconds", ("batches", "read")] == 1.5
    assert found["notif_runs_unfinished", ("QUEUED",)] == 2
    assert found["notif_dagster_daemon_timestamp_seconds", ("SENSOR",)] == now.timestamp()


def test_a_lake_that_cannot_be_read_is_told_and_all_else_goes_on(tmp_path: Path, served: Served) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(served.deployment.lake.root, lake)
    for entry in (lake / "customer_panel" / "_delta_log").glob("*.json"):
        entry.write_text("no log\n")
    panel = Panel(Settings(data=tmp_path))
    try:
        found = numbers(metrics.exposition(panel).decode())
    finally:
        panel.stop()
    assert found["notif_lake_readable", ()] == 0
    assert found["notif_disk_bytes", ()] > 0


# --- measures ---------------------------------------------------------------------------------------------------------


def test_what_is_measured_is_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "a" / "b" / "two").write_bytes(b"4567")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    link = len(str(tmp_path / "a" / "b"))
    assert bytes_below(tmp_path / "a") == 7 + link
    assert bytes_below(tmp_path / "none") == 0


def test_open_days_are_those_with_messages_and_those_that_may_close(daemon: Daemon) -> None:
    settings = daemon.settings
    assert (measure(settings).open_days, measure(settings).days_that_may_close) == (0, 0)
    now = datetime.now(UTC)
    days = [now - timedelta(days=back) for back in (5, 3, 0)]
    daemon.topic.produce(*(sent(day, message_id=f"{day:%d}") for day in days))
    daemon.ingest()
    found = measure(settings)
    assert found.days_that_may_close == len(open_days_that_should_be_closed(daemon.lake, daemon.settings)) > 0
    assert found.open_days == 5  # from the first one to yesterday: quiet days close too
    daemon.close(f"{days[0]:%Y-%m-%d}")
    assert measure(settings).open_days == 4
    assert found.table_bytes["notifications"] > 0


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_is_told_by_its_newest_runs(daemon: Daemon) -> None:
    day_ago = datetime.now(UTC) - timedelta(days=1)
    assert health.jobs(daemon.instance, day_ago) == []
    first = daemon.run("micro_batch")
    daemon.stuck("micro_batch", "QUEUED", launched=True)
    (job,) = health.jobs(daemon.instance, day_ago)
    assert (job.job, job.failing, job.failures, job.run_id) == ("micro_batch", False, 0, first.run_id)
    assert 0 < sum(health.step_seconds(daemon.instance, first.run_id).values()) <= (job.seconds or 0)
    assert health.unfinished(daemon.instance) == {"QUEUED": 1}

    failed = daemon.stuck("micro_batch", "STARTED")
    daemon.instance.report_run_failed(failed)
    (job,) = health.jobs(daemon.instance, day_ago)
    assert (job.failing, job.failures, job.run_id) == (True, 1, first.run_id)
    assert health.jobs(daemon.instance, datetime.now(UTC) + timedelta(minutes=1))[0].failures == 0

    again = daemon.run("micro_batch")
    (job,) = health.jobs(daemon.instance, day_ago)
    assert (job.failing, job.failures, job.run_id) == (False, 1, again.run_id)


def test_a_job_that_never_succeeded_is_told_too(daemon: Daemon) -> None:
    daemon.instance.report_run_failed(daemon.stuck("prices_job", "STARTED"))
    (job,) = health.jobs(daemon.instance, datetime.now(UTC) - timedelta(days=1))
    assert job[:5] == ("prices_job", True, 1, None, None)


def test_what_dagster_calls_its_own_jobs_is_no_job(daemon: Daemon) -> None:
    @dg.asset
    def one() -> None:
        pass

    dg.materialize([one], instance=daemon.instance)
    assert health.jobs(daemon.instance, datetime.now(UTC)) == []
