"""The system under its real conductor: `dagster dev`, with daemon, sensors and UI, on the embedded broker.

Belongs here: what happens without anybody's doing, whatever is killed or failing meanwhile; the UI's own path for
backfills. Doesn't: when a sensor or schedule asks for a run (test_sensors.py, test_schedules.py), what a run commits.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from notif_assets_tests.cli.deployment import ROOT, ok, until
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.truth import assert_exact
from notif_assets_tests.instance.conductor import Conductor, conducted

SAMPLES = files("notif_assets") / "samples"
BILL = ("daily_billing", "billing_days", "billing_adjustments")

pytestmark = pytest.mark.timeout(600)


class Webhook(HTTPServer):
    """What somebody is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def conducted_impatiently(deploy: Deploy, webhook: Webhook, **settings: str) -> Iterator[Conductor]:
    """A deployment that nobody waits long for; `settings`, if any, name another storage of Dagster's."""
    deployment = deploy(
        4,
        untouched=bool(settings),
        NOTIF_RUN_EVERY="1s",
        NOTIF_RETRY_AFTER="5s",
        NOTIF_GRACE="1s",
        NOTIF_WEBHOOK=f"http://127.0.0.1:{webhook.server_port}/hook",
        NOTIF_BATCH_MESSAGES="100",
        **settings,
    )
    ok(deployment.call("import-prices", ROOT / "notif_assets" / "samples" / "prices-demo.csv"))
    with conducted(Conductor, deployment) as running:
        yield running


@pytest.fixture(scope="module")
def conductor(deploy: Deploy, webhook: Webhook) -> Iterator[Conductor]:
    with conducted_impatiently(deploy, webhook) as running:
        yield running


def test_messages_are_counted_without_anybody_s_doing_and_files_are_taken_once(conductor: Conductor) -> None:
    dropping, inbox = (conductor.deployment.home / "data" / name for name in ("dropping", "inbox"))
    dropped = {
        "invoices/invoices.csv": "invoices.csv",
        "chatbot/date=2019-12-16/hour=13.json": "hour=13.json",
        "chatbot/date=2019-12-16/hour=14.json": "hour=14.json",
    }
    for place, sample in dropped.items():
        (dropping / place).parent.mkdir(parents=True, exist_ok=True)
        (dropping / place).write_bytes((SAMPLES / sample).read_bytes())
    inbox.mkdir(exist_ok=True)
    for kind in ("invoices", "chatbot"):  # both hours at once: a sensor that looks between them starts two runs
        (dropping / kind).rename(inbox / kind)
    conductor.send(500)
    conductor.until_counted()
    assert_exact(conductor.deployment, conductor.truth)
    conductor.until_run("invoice_averages_job", dg.DagsterRunStatus.SUCCESS)
    conductor.until_run("chatbot_reports_job", dg.DagsterRunStatus.SUCCESS)
    assert len(conductor.deployment.rows("invoices")) == 15
    assert {row["flow"] for row in conductor.deployment.rows("chatbot_reports")} == {"F1000", "F2000"}

    with (inbox / "invoices/invoices.csv").open("a") as invoices:
        invoices.write("\nC3000,A3100,2020-01-01,10.00\n")
    conductor.until_run("invoices_job", dg.DagsterRunStatus.SUCCESS, already=1)
    assert len(conductor.deployment.rows("invoices")) == 16
    assert [len(conductor.runs(job)) for job in ("invoices_job", "chatbot_answers_job")] == [2, 1]


def test_a_manual_materialization_in_the_middle_does_no_harm(conductor: Conductor) -> None:
    conductor.send(600)
    ok(conductor.deployment.run("ingest", "--until-caught-up"))
    conductor.send(300)
    conductor.until_counted()
    assert_exact(conductor.deployment, conductor.truth)


def test_a_killed_run_is_followed_by_one_that_goes_on(conductor: Conductor) -> None:
    failed = len(conductor.runs("micro_batch", dg.DagsterRunStatus.FAILURE))
    run_id = conductor.send_until_taken(2000)
    process = until(lambda: conductor.process_of(run_id), "its process")
    assert b"multiprocessing.forkserver" in Path(f"/proc/{process}/cmdline").read_bytes()  # and not a new Python
    assert conductor.kill_run(run_id)
    conductor.until_run("micro_batch", dg.DagsterRunStatus.FAILURE, already=failed)
    conductor.until_counted()
    assert_exact(conductor.deployment, conductor.truth)


def test_a_slot_that_an_ended_run_kept_is_given_back(conductor: Conductor) -> None:
    """A run that is killed while it asks for its slot leaves its question behind, and is failed by its launcher."""
    pool, ended = conductor.instance.event_log_storage, conductor.runs("micro_batch", dg.DagsterRunStatus.SUCCESS)[-1]
    run_id = ended.dagster_run.run_id
    until(lambda: pool.claim_concurrency_slot("notifications", run_id, "a step").is_claimed, "a free slot")
    conductor.send(100)
    conductor.until_counted()
    assert run_id not in pool.get_concurrency_run_ids()
    assert_exact(conductor.deployment, conductor.truth)


def test_after_a_power_cut_in_the_middle_of_a_run_it_goes_on_by_itself(conductor: Conductor) -> None:
    run_id = conductor.send_until_taken(2000)
    conductor.kill()
    conductor.start()
    conductor.until_counted()
    assert conductor.run(run_id).status == dg.DagsterRunStatus.FAILURE
    assert_exact(conductor.deployment, conductor.truth)


def test_a_full_queue_is_worked_off_and_messages_come_first(conductor: Conductor) -> None:
    for _ in range(6):
        conductor.launch("all_checks")
    conductor.send(300)
    conductor.until_counted()
    counted = conductor.runs("micro_batch", dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS)[0]
    assert_exact(conductor.deployment, conductor.truth)
    until(lambda: len(conductor.runs("all_checks", dg.DagsterRunStatus.SUCCESS)) >= 6, "the end of the queue")
    last = max(record.start_time or 0 for record in conductor.runs("all_checks"))
    assert (counted.start_time or last) < last


def test_a_late_message_of_a_closed_day_becomes_an_adjustment(conductor: Conductor) -> None:
    yesterday = datetime.now(UTC).replace(hour=12, minute=0) - timedelta(days=1)
    conductor.send_one("Whatsapp", yesterday)
    conductor.until_counted()
    ok(conductor.deployment.run("close-day", f"{yesterday:%Y-%m-%d}"))
    conductor.send_one("Whatsapp", yesterday)
    customer = str(9_000_000 + conductor.seed)

    def adjustments() -> list[dict[str, Any]]:
        rows = conductor.deployment.rows("billing_adjustments")
        return [row for row in rows if str(row["customer_id"]) == customer]  # the hourly schedule closes days as well

    (adjustment,) = until(adjustments, "the adjustment")
    assert (adjustment["billing_date"], adjustment["notifications_delta"]) == (yesterday.date(), 1)


def test_a_backfill_of_the_ui_is_one_run_and_every_day_has_its_numbers(conductor: Conductor) -> None:
    days = [f"{datetime.now(UTC) - timedelta(days=back):%Y-%m-%d}" for back in (4, 3, 2)]
    before = {record.dagster_run.run_id for record in conductor.runs("__ASSET_JOB")}
    answer = conductor.graphql(
        "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) "
        "{ __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
        p={"assetSelection": [{"path": [name]} for name in BILL], "partitionNames": days},
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer

    def ended() -> list[dg.DagsterRun]:
        time.sleep(0.3)
        runs = conductor.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": answer["backfillId"]}))
        return [run for run in runs if run.is_finished]

    (run,) = until(ended, "the backfill")
    assert run.run_id not in before
    assert run.status == dg.DagsterRunStatus.SUCCESS
    numbers = {}
    for record in conductor.instance.fetch_materializations(dg.AssetKey("daily_billing"), limit=50).records:
        event = record.asset_materialization
        if event is not None and record.run_id == run.run_id:
            numbers[event.partition] = event.metadata["dagster/partition_row_count"].value
    assert set(numbers) == set(days)
    for day, lines in numbers.items():
        assert lines == sum(str(row["billing_date"]) == day for row in conductor.deployment.rows("daily_billing"))


def test_a_range_of_days_on_dagster_s_command_line_is_one_run(conductor: Conductor) -> None:
    days = [f"{datetime.now(UTC) - timedelta(days=back):%Y-%m-%d}" for back in (7, 6, 5)]
    before = {record.dagster_run.run_id for record in conductor.runs("__ASSET_JOB")}
    command = ["-m", "dagster", "asset", "materialize", "-m", "notif_assets.definitions"]
    command += ["--select", ",".join(BILL), "--partition-range", f"{days[0]}...{days[-1]}"]
    run = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=conductor.deployment.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    (new,) = [r for r in conductor.runs("__ASSET_JOB") if r.dagster_run.run_id not in before]
    assert new.dagster_run.status == dg.DagsterRunStatus.SUCCESS
    events = conductor.instance.fetch_materializations(dg.AssetKey("billing_days"), limit=50).records
    assert {e.partition_key for e in events if e.run_id == new.dagster_run.run_id} == set(days)


def test_a_failing_gate_stops_what_comes_after_and_somebody_is_told(conductor: Conductor, webhook: Webhook) -> None:
    today = datetime.now(UTC)
    conductor.send_one("Fax", today)  # has no price
    conductor.until_counted()
    answer = conductor.deployment.run("import-prices", ROOT / "notif_assets" / "samples" / "prices.csv")
    assert answer.code == 0 or "Fax" in answer.err
    tags = {"dagster/asset_partition_range_start": f"{today:%Y-%m-%d}"}
    tags["dagster/asset_partition_range_end"] = tags["dagster/asset_partition_range_start"]
    conductor.launch("daily_billing_job", tags)
    conductor.until_run("daily_billing_job", dg.DagsterRunStatus.FAILURE)
    until(lambda: any("every_channel_has_one_price" in text for text in webhook.told), "the message to the webhook")
    assert any("Fax" in text for text in webhook.told)
    # Of this day alone: the hourly schedule may close others meanwhile.
    assert today.date() not in {row["billing_date"] for row in conductor.deployment.rows("billing_days")}


def test_never_were_two_micro_batches_at_once(conductor: Conductor) -> None:
    spans = sorted(
        (record.start_time, record.end_time or time.time())
        for record in conductor.runs("micro_batch")
        if record.start_time and "notif_assets/lag" in record.dagster_run.tags  # those of the sensor
    )
    assert len(spans) > 2
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
