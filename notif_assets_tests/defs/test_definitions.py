"""The asset graph as Dagster sees it: what is in it, what it costs to load, what stops what.

Belongs here: runs of whole jobs through `build_definitions`, as the UI and the command line make them. Doesn't: what a
table holds afterwards (notifications/, billing/, invoices/, chatbot/).
"""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable

from notif_assets.billing import lines as lines_module
from notif_assets.billing.closed_days import is_closed
from notif_assets.billing.lines import EXAMPLE_BILL
from notif_assets.definitions import build_definitions
from notif_assets.defs.assets.specs import column_lineage
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.notifications import silver
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.streams import MemoryLog, Record, sent

SNAPSHOT = Path(__file__).parent / "asset_graph.json"
NOW = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = NOW - timedelta(days=1)


class Deployment:
    """Definitions over a lake of their own and a topic in memory."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(data=root, max_event_age=timedelta(days=400))
        self.topic = MemoryLog(partitions=2)
        self.definitions = build_definitions(self.settings, kafka=lambda: self.topic)
        self.lake = Lake(self.settings.lake)

    def run(self, job: str, **tags: str) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            raise_on_error=False, tags={f"dagster/{name}": value for name, value in tags.items()}
        )

    def bill(self, first: datetime, last: datetime | None = None) -> dg.ExecuteInProcessResult:
        return self.run(
            "daily_billing_job",
            asset_partition_range_start=f"{first:%Y-%m-%d}",
            asset_partition_range_end=f"{last or first:%Y-%m-%d}",
        )


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}


def test_definitions_load_fast_and_open_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from notif_assets.definitions import build_definitions\n"
        "from notif_assets.settings import Settings\n"
        "import dagster as dg\n"
        "dg.Definitions.validate_loadable(build_definitions(Settings()))\n"
        "loaded = [name for name in ('pyspark', 'kafka', 'confluent_kafka') if name in sys.modules]\n"
        "print(loaded)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_every_table_is_an_asset_with_its_columns(deployment: Deployment) -> None:
    specs = {spec.key.to_user_string(): spec for spec in deployment.definitions.resolve_all_asset_specs()}
    assert SCHEMAS.keys() <= specs.keys()
    for name, schema in SCHEMAS.items():
        assert specs[name].metadata["dagster/uri"] == str(deployment.settings.lake / name)
        columns = specs[name].metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == schema.arrow.names
        assert all(column.description for column in columns)
    for spec in specs.values():
        assert spec.description
        assert spec.owners
        assert spec.kinds
        assert spec.group_name


def test_every_asset_leads_to_its_code(deployment: Deployment) -> None:
    for spec in deployment.definitions.resolve_all_asset_specs():
        if deployment.definitions.resolve_asset_graph().get(spec.key).is_materializable:
            (reference,) = spec.metadata["dagster/code_references"].code_references
            assert Path(reference.file_path).is_relative_to(ROOT / "notif_assets" / "defs")


@pytest.mark.parametrize("name", ["minute_aggregates", "daily_billing"])
def test_column_lineage_names_columns_that_exist(name: str) -> None:
    lineage = column_lineage(name)["dagster/column_lineage"]
    assert lineage.deps_by_column.keys() <= set(SCHEMAS[name].arrow.names)
    for sources in lineage.deps_by_column.values():
        for source in sources:
            assert source.column_name in SCHEMAS[source.asset_key.to_user_string()].arrow.names


def test_the_graph_is_the_one_that_was_agreed_on(deployment: Deployment) -> None:
    """Anything that changes how assets hang together shows in a diff of asset_graph.json (delete it to renew it)."""
    graph = deployment.definitions.resolve_asset_graph()
    seen = {
        spec.key.to_user_string(): {
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "group": spec.group_name,
            "partitions": type(spec.partitions_def).__name__ if spec.partitions_def else None,
            "checks": sorted(key.name for key in graph.asset_check_keys if key.asset_key == spec.key),
        }
        for spec in deployment.definitions.resolve_all_asset_specs()
    }
    text = json.dumps(seen, indent=1, sort_keys=True) + "\n"
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()


def test_no_partitioned_asset_is_reached_on_two_ways_from_within_its_own_op(deployment: Deployment) -> None:
    """Else Dagster refuses the UI's backfills of several days, or not, by the order of its sets (seeds 3, 4, 5)."""
    graph = deployment.definitions.resolve_asset_graph()
    for node in graph.asset_nodes:
        if node.is_partitioned:
            assert len(node.parent_keys & node.execution_set_asset_keys - {node.key}) <= 1, node.key


def test_one_run_brings_a_message_from_the_topic_to_the_panel_and_another_to_the_bill(deployment: Deployment) -> None:
    deployment.topic.produce(sent(YESTERDAY), partition=0)
    deployment.topic.produce(Record(b"nonsense", YESTERDAY), partition=1)
    result = deployment.run("micro_batch")
    assert result.success
    assert failed_checks(result) == set()
    assert materialized(result) == {
        "ingest_batches",
        "raw_notifications",
        "notifications",
        "rejected_notifications",
        "minute_aggregates",
        "customer_panel",
    }
    result = deployment.bill(YESTERDAY - timedelta(days=1), YESTERDAY - timedelta(days=1))
    assert result.success
    assert is_closed(deployment.lake, (YESTERDAY - timedelta(days=1)).date())
    assert (deployment.settings.reports / "billing" / f"{YESTERDAY - timedelta(days=1):%Y-%m-%d}.txt").exists()


def test_a_failing_check_stops_what_comes_after_it(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are in silver twice never reach the minutes, in this run and in those after it."""
    deployment.topic.produce(sent(YESTERDAY, message_id="a"), partition=0)
    assert deployment.run("micro_batch").success
    once = silver._first_arrivals
    monkeypatch.setattr(silver, "_first_arrivals", lambda *given: (rows for rows in once(*given) for _ in range(2)))
    deployment.topic.produce(sent(YESTERDAY, message_id="b"), partition=0)
    result = deployment.run("micro_batch")
    assert not result.success
    assert "each_message_once" in failed_checks(result)
    assert "minute_aggregates" not in materialized(result)
    monkeypatch.undo()
    again = deployment.run("micro_batch")
    assert not again.success, "a check covers all that its consumer has not taken, however many runs later"
    assert deployment.lake.table("minute_aggregates").watermark == 1


def test_a_gate_that_fails_writes_nothing_and_names_itself(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = YESTERDAY - timedelta(days=2)
    deployment.topic.produce(sent(day, channel="Fax"), partition=0)
    assert deployment.run("micro_batch").success
    result = deployment.bill(day)
    assert not result.success
    assert failed_checks(result) == {"every_channel_has_one_price"}
    assert not is_closed(deployment.lake, day.date())

    monkeypatch.setattr(lines_module, "EXAMPLE_BILL", EXAMPLE_BILL.replace("1000,00", "1000,01"))
    result = deployment.bill(day - timedelta(days=1))
    assert not result.success
    assert "published_bill_holds" in failed_checks(result)
    assert deployment.lake.table("daily_billing").version == 0
    assert deployment.lake.table("billing_days").version == 0


def test_one_backfill_bills_a_range_of_days_in_one_run_and_twice_is_once(deployment: Deployment) -> None:
    first, last = YESTERDAY - timedelta(days=4), YESTERDAY - timedelta(days=2)
    for days in range(5):
        event = YESTERDAY - timedelta(days=days)
        deployment.topic.produce(sent(event, message_id=str(days)), partition=days % 2)
    assert deployment.run("micro_batch").success
    assert deployment.bill(first, last).success
    closed = DeltaTable(deployment.settings.lake / "daily_billing").to_pyarrow_table()
    assert sorted(row["notifications"] for row in closed.to_pylist()) == [1, 1, 1]
    versions = {name: deployment.lake.table(name).version for name in ("daily_billing", "billing_days")}
    assert deployment.bill(first, last).success
    assert {name: deployment.lake.table(name).version for name in versions} == versions
    assert deployment.lake.table("billing_adjustments").version == 0


def test_the_checks_job_finds_a_damaged_table(deployment: Deployment) -> None:
    deployment.topic.produce(sent(YESTERDAY), partition=0)
    assert deployment.run("micro_batch").success
    assert not failed_checks(deployment.run("all_checks")) - {"every_closed_day_is_present"}
    DeltaTable(deployment.settings.lake / "minute_aggregates").delete("notifications = 1")
    result = deployment.run("all_checks")
    assert "minutes_equal_messages" in failed_checks(result)
