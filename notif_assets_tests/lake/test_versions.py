"""Lakes that older versions wrote open and go on exactly.

Belongs here: every archive of versions/, opened and carried on with today's code, and how a lake is brought forward.
Doesn't: how an archive is made (versions/make.py).
"""

import json
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable

from notif_assets.kafka import process_client
from notif_assets.kafka.confluent_client import ConfluentClient
from notif_assets.kafka.open import open_client
from notif_assets.kafka.python_client import PythonClient
from notif_assets.lake import SCHEMAS, Lake, LakeError, migrations
from notif_assets.lake.catalogue import VERSION
from notif_assets.notifications import queries
from notif_assets.panel.snapshot import Panel
from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import IN_ORDER, Deployment, ok, refusal
from notif_assets_tests.cli.messages import ACME, milliseconds, notification
from notif_assets_tests.kafka.conftest import ClientName
from notif_assets_tests.lake.versions.make import HERE, LIMIT, NOON, PARTITIONS, TOPIC, rows

Rows = dict[str, list[dict[str, Any]]]
ARCHIVES = sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz"))


def _unpacked(name: str, data: Path) -> Rows:
    """The archive's lake in the folder `data`; gives the rows that its version read."""
    data.mkdir()
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11 has it from 3.11.4 on
        archive.extractall(data)
    found: Rows = json.loads((data / "rows.json").read_bytes())
    (data / "rows.json").unlink()
    return found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The root of a lake of version 1."""
    _unpacked("1", tmp_path / "data")
    return tmp_path / "data" / "lake"


@pytest.fixture(params=ARCHIVES)
def archive(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _as_before(now: Rows, before: Rows) -> Rows:
    """Today's rows with the columns of before."""
    return {
        table: sorted(
            ({c: row[c] for c in before[table][0]} if before[table] else row for row in of_table), key=json.dumps
        )
        for table, of_table in now.items()
        if table in before
    }


@pytest.fixture
def carried_on(
    archive: str, tmp_path: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Deployment, Rows]]:
    """The lake in a deployment, on a topic that holds what it took; and its rows."""
    before = _unpacked(archive, tmp_path / "data")
    if topic_id := before["ingest_batches"][0]["topic_id"]:  # an embedded broker has one of its own each time
        for client in (PythonClient, ConfluentClient):
            monkeypatch.setattr(client, "_topic_id", lambda *_: topic_id)
        monkeypatch.setattr(process_client, "ProcessClient", open_client)  # another process would ask the broker
    shutil.copytree(storage, tmp_path / "dagster")
    with EmbeddedBroker(topic=TOPIC, partitions=PARTITIONS) as broker, Lake(tmp_path / "data" / "lake") as lake:
        producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0, **IN_ORDER})
        for row in sorted(
            lake.rows(lake.table("raw_notifications").scan()).to_pylist(), key=lambda row: row["kafka_offset"]
        ):
            stamp = milliseconds(row["kafka_timestamp"])
            producer.produce(TOPIC, row["value"], row["key"], row["kafka_partition"], timestamp=stamp)
        assert producer.flush(30) == 0
        settings = {"NOTIF_MAX_MESSAGE_BYTES": str(LIMIT)}
        yield Deployment(tmp_path, broker.bootstrap, TOPIC, PARTITIONS, settings), before


def test_every_row_is_read_as_it_was_before_anybody_writes(archive: str, tmp_path: Path) -> None:
    before = _unpacked(archive, tmp_path / "data")
    settings = Settings(data=tmp_path / "data")
    with Lake(settings.lake) as lake:
        assert _as_before(rows(lake), before) == before
    panel = Panel(settings)
    try:
        assert len(panel.refresh().overview.customers) == 2
        assert panel.hours
        assert panel.rejected
    finally:
        panel.stop()
    version = {} if archive == "1" else {"version": int(archive)}
    assert json.loads((settings.lake / "lake.json").read_text()) == {"topic": TOPIC, "timezone": "UTC", **version}


@pytest.mark.parametrize("client", get_args(ClientName))
def test_it_goes_on_exactly(carried_on: tuple[Deployment, Rows], client: ClientName) -> None:
    deployment, before = carried_on
    deployment.settings["NOTIF_KAFKA_CLIENT"] = client
    ok(deployment.call("report", "panel"))
    assert json.loads((deployment.lake.root / "lake.json").read_text())["version"] == VERSION
    with deployment.lake as lake:
        assert _as_before(rows(lake), before) == before
    deployment.send(
        [notification(NOON + timedelta(hours=n), f"new{n}", at=NOON + timedelta(days=1)) for n in range(4)]
        + [notification(NOON + timedelta(days=1, hours=1), "new too")]
    )
    for new in (5, 0):
        said = ok(deployment.call("ingest", "--until-caught-up")).text
        assert said.startswith(f"this run: {new} notifications, 0 rejected; in all: 223 notifications, 5 rejected; ")
    said = ok(deployment.call("close-day", "2020-02-03", "--to", "2020-02-04")).text
    assert said == (
        "2020-02-03 closed: 4 lines, 150 notifications, R$ 7,30; 3 adjustments, R$ 0,48\n"
        "2020-02-04 closed: 1 lines, 61 notifications, R$ 2,44\n"
    )
    ok(deployment.call("maintain"))
    ok(deployment.call("check"))
    with deployment.lake as lake:
        now = _as_before(rows(lake), before)
        for table in ("ingest_batches", "raw_notifications", "notifications", "billing_adjustments", "prices"):
            assert [row for row in before[table] if row not in now[table]] == []
        for table in ("invoices", "chatbot_answers", "chatbot_reports", "rejected_notifications", "rejected_file_rows"):
            assert now[table] == before[table]
        assert len(now["raw_notifications"]) == len(before["raw_notifications"]) + 5
        panel = queries.panel(lake, NOON.date()).to_pylist()
        assert {row["customer_id"] for row in panel} >= {ACME}
        for name in SCHEMAS:
            protocol = DeltaTable(str(lake.root / name)).protocol()
            assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


# --- how it is brought forward ----------------------------------------------------------------------------------------


def _is_of_today(root: Path) -> bool:
    with Lake(root) as lake:
        rows(lake)
    assert json.loads((root / "lake.json").read_text()) == {"topic": TOPIC, "timezone": "UTC", "version": VERSION}
    assert {path.name for path in root.iterdir()} == {"lake.json", *SCHEMAS}  # no drafts left behind
    for name, schema in SCHEMAS.items():
        properties = DeltaTable(str(root / name)).metadata().configuration
        assert properties["delta.logRetentionDuration"] == "interval 1 days", name
        assert properties["delta.deletedFileRetentionDuration"] == f"interval {schema.retention.days} days", name
    return all(
        {column.name for column in schema.columns}
        == {field.name for field in DeltaTable(str(root / name)).schema().fields}
        for name, schema in SCHEMAS.items()
    )


def test_each_version_has_its_step() -> None:
    assert set(migrations.STEPS) == set(range(2, VERSION + 1))
    assert max(column.since for schema in SCHEMAS.values() for column in schema.columns) <= VERSION
    assert all(c.nullable for schema in SCHEMAS.values() for c in schema.since(2))


@pytest.mark.parametrize("at", ["before the step", "after the step", "before lake.json is replaced"])
def test_the_next_writer_finishes_what_was_killed(old: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def step(open_table: migrations.OpenTable) -> None:
        if at != "before the step":
            migrations._add_record_marks(open_table)
        if at != "before lake.json is replaced":
            raise Killed

    def replace(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "STEPS", {**migrations.STEPS, 2: step})
        if at == "before lake.json is replaced":
            patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            Lake(old).claim(topic=TOPIC, timezone="UTC")
    assert "version" not in json.loads((old / "lake.json").read_text())
    for _ in range(2):
        Lake(old).claim(topic=TOPIC, timezone="UTC")
    assert _is_of_today(old)
    assert DeltaTable(str(old / "ingest_batches")).version() == 4 + 2  # the columns came once, and the properties


def test_many_writers_bring_it_forward_at_once(old: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(Lake(old).claim, topic=TOPIC, timezone="UTC") for _ in range(4)]:
            done.result()
    assert _is_of_today(old)


def test_who_may_not_write_reads_and_is_told_what_brings_it_forward(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refused(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if "x" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *rest, **options)

    with Lake(old) as lake:
        monkeypatch.setattr(Path, "open", refused)
        with pytest.raises(LakeError, match=r"is of version 1 and can't be brought to version .*notif-assets maintain"):
            lake.claim(topic=TOPIC, timezone="UTC")
        assert len(rows(lake)["raw_notifications"]) == 223


def test_a_lake_of_a_newer_version_is_refused(old: Path, storage: Path) -> None:
    identity = {"topic": TOPIC, "timezone": "UTC", "version": VERSION + 1}
    (old / "lake.json").write_text(json.dumps(identity))
    said = f"is of version {VERSION + 1}, and this notif-assets knows up to {VERSION}"
    with Lake(old) as lake, pytest.raises(LakeError, match=said):
        lake.claim(topic=TOPIC, timezone="UTC")
    with Lake(old) as lake, pytest.raises(LakeError, match=said):
        lake.table("prices")
    panel = Panel(Settings(data=old.parent))
    try:
        with pytest.raises(LakeError, match=said):
            panel.refresh()
    finally:
        panel.stop()
    deployment = Deployment(old.parent.parent, "127.0.0.1:1", TOPIC, PARTITIONS)
    assert said in refusal(deployment.call("report", "panel"))
