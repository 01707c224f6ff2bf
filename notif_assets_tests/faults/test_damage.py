"""Files of the lake that are gone, cut off or scrambled: named by `check`, and repaired by what it says.

Belongs here: damage to a lake at rest, through the command line. Doesn't: rebuilding of whole tables (maintenance/),
kills.
"""

import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from deltalake import DeltaTable

from notif_assets.lake import SCHEMAS, LakeError
from notif_assets.maintenance.fingerprint import Fingerprint, fingerprint_of
from notif_assets.maintenance.integrity import find_broken_files
from notif_assets_tests.cli.deployment import Deployment, ok, refusal
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.truth import Truth, assert_exact, parsed, traffic

DERIVED = sorted(name for name, schema in SCHEMAS.items() if schema.origin == "derived")
WRITTEN = sorted(SCHEMAS.keys() - {"ingest_losses", "billing_adjustments", "rejected_file_rows"})
_SAMPLES = files("notif_assets") / "samples"


class _World:
    """A deployment that has something in nearly every table, and a copy of its lake."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.truth = deployment, Truth()
        self.day = (datetime.now(UTC) - timedelta(days=3)).date()
        noon = datetime(self.day.year, self.day.month, self.day.day, 12, tzinfo=UTC)
        ok(deployment.call("import-prices", _SAMPLES / "prices-demo.csv"))
        sent, tally = traffic(1, 300, noon)
        again = [message for message in sent if parsed(message.value)][:50]
        for messages in (sent, again):
            self.truth.note(messages)
            deployment.send(messages)
            ok(deployment.call("ingest", "--until-caught-up"))
        self.truth.count(tally)
        self.truth.tally.produced += len(again)
        self.truth.tally.duplicates += len(again)
        ok(deployment.call("close-day", self.day))
        ok(deployment.call("import-invoices", _SAMPLES / "invoices.csv"))
        hours = [_SAMPLES / name for name in ("hour=13.json", "hour=14.json")]
        ok(deployment.call("import-answers", "--date", "2019-12-16", *hours))
        ok(deployment.call("maintain"))
        self.truth.send(deployment, 3, 200, noon + timedelta(minutes=50))
        ok(deployment.call("ingest", "--until-caught-up"))
        self.copy = deployment.home / "copy"
        shutil.copytree(deployment.lake.root, self.copy)
        self.contents = {name: self.content(name) for name in SCHEMAS}

    def restore(self) -> None:
        shutil.rmtree(self.deployment.lake.root)
        shutil.copytree(self.copy, self.deployment.lake.root)

    def content(self, name: str) -> Fingerprint:
        with self.deployment.lake as lake:
            return fingerprint_of(lake, lake.table(name).scan())

    def data_files(self, name: str) -> list[Path]:
        table = self.deployment.lake.table(name)
        return sorted(table.path / file.path for file in table.data_files())

    def newest_entry(self, name: str) -> Path:
        log = self.deployment.lake.root / name / "_delta_log"
        return max(entry for entry in log.glob("*.json"))

    def sound(self) -> bool:
        with self.deployment.lake as lake:
            return not list(find_broken_files(lake))

    def findings(self) -> list[str]:
        """What `check` finds: a line for each, and how many at the end."""
        answer = self.deployment.call("check")
        lines = answer.text.splitlines()
        assert f"Error: {len(lines)} files of the lake are damaged" in refusal(answer)
        assert all(line.startswith("FAIL ") for line in lines)
        return lines


@pytest.fixture(scope="module")
def filled(deploy: Deploy) -> _World:
    return _World(deploy(2, NOTIF_BATCH_MESSAGES="60"))


@pytest.fixture
def world(filled: _World) -> Iterator[_World]:
    yield filled
    filled.restore()


def scramble(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    match how:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "half":
            file.write_bytes(data[: len(data) // 2])
        case "zeros":  # as long as it was: blocks that never came to the disk
            file.write_bytes(bytes(len(data)))
        case "a page of zeros":
            data[4:60] = bytes(56)
            file.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "empty", "half", "zeros", "a page of zeros"])
def test_every_damaged_file_of_every_table_is_named_with_what_repairs_it(world: _World, how: str) -> None:
    damaged = {name: world.data_files(name)[-1] for name in WRITTEN}
    for file in damaged.values():
        scramble(file, how)
    found = {line.split()[1].rstrip(":"): line for line in world.findings()}
    assert found.keys() == damaged.keys()
    for name, file in damaged.items():
        assert str(file) in found[name]
        origin = SCHEMAS[name].origin
        assert ("`notif-assets rebuild " in found[name]) == (origin == "derived")
        assert ("restore the file from a backup" in found[name]) == (origin != "derived")
        assert ("it is a book" in found[name]) == (origin == "book")


@pytest.mark.parametrize("name", DERIVED)
def test_what_check_says_repairs_a_derived_table_to_the_same_content(world: _World, name: str) -> None:
    scramble(world.data_files(name)[-1], "zeros")
    (line,) = world.findings()
    command = line.split("`")[1].split()
    assert command[:2] == ["notif-assets", "rebuild"]
    ok(world.deployment.call(*command[1:]))
    assert {table: world.content(table) for table in SCHEMAS} == world.contents
    assert world.sound()


def test_all_files_of_the_derived_tables_come_back_from_the_tables_before_them(world: _World) -> None:
    for name in DERIVED:
        for file in world.data_files(name):
            scramble(file, "missing")
    assert {line.split()[1] for line in world.findings()} == {f"{name}:" for name in DERIVED}
    for name in ("notifications", "minute_aggregates", "customer_panel", "invoice_window_averages", "chatbot_reports"):
        ok(world.deployment.call("rebuild", name))
    assert {table: world.content(table) for table in SCHEMAS} == world.contents
    ok(world.deployment.call("check"))


def test_a_restored_file_of_a_book_is_all_that_it_needs(world: _World) -> None:
    file = world.data_files("daily_billing")[0]
    scramble(file, "half")
    assert "daily_billing can't be rebuilt: it is a book" in refusal(world.deployment.call("rebuild", "daily_billing"))
    assert len(world.findings()) == 1
    shutil.copy(world.copy / file.relative_to(world.deployment.lake.root), file)
    assert world.sound()


@pytest.mark.parametrize("name", ["raw_notifications", "notifications", "minute_aggregates"])
def test_who_needs_a_damaged_file_says_so_in_one_line_and_commits_nothing(world: _World, name: str) -> None:
    for file in world.data_files(name):
        scramble(file, "zeros")
    before = world.deployment.files()
    table = {"raw_notifications": "notifications", "notifications": "minute_aggregates"}.get(name, "customer_panel")
    line = refusal(world.deployment.call("rebuild", table))
    assert "can't be read" in line
    assert "`notif-assets check` says what repairs it" in line
    entries = {path for path in before if "_delta_log" in path}
    assert {path for path in world.deployment.files() if "_delta_log" in path and ".replay" not in path} == entries


# --- the log ----------------------------------------------------------------------------------------------------------


def cuts(data: bytes) -> list[int]:
    """Where a log entry is cut: nothing left, at every end of a line, within a line, and anywhere."""
    ends = [place for place, byte in enumerate(data) if byte == ord("\n")]
    chance = random.Random(len(data))
    return sorted({0, 1, len(data) - 1, *ends, *(end + 1 for end in ends), *chance.sample(range(len(data)), 5)})


def test_a_log_entry_cut_anywhere_is_never_taken_for_a_commit(world: _World) -> None:
    for name in sorted(SCHEMAS):
        entry = world.newest_entry(name)
        data = entry.read_bytes()
        for torn in (*(data[:length] for length in cuts(data)), bytes(len(data))):
            entry.write_bytes(torn)
            with pytest.raises(LakeError, match="is cut off") as refused, world.deployment.lake as lake:
                lake.table(name)
            assert str(refused.value).startswith(f"table {name}: its log entry {entry} is cut off"), len(torn)
        (line,) = world.findings()
        assert line == f"FAIL {name}: {refused.value}"
        assert line.endswith("move that file away, and what it held is done again by the next run, command or import")
        entry.write_bytes(data)
    assert world.sound()


@pytest.mark.parametrize(
    "name",
    [
        "raw_notifications",
        "notifications",
        "rejected_notifications",
        "minute_aggregates",
        "customer_panel",
    ],
)
def test_the_batch_of_a_lost_log_entry_is_done_again(world: _World, name: str) -> None:
    entry = world.newest_entry(name)
    entry.write_bytes(entry.read_bytes()[:-20])
    world.truth.send(world.deployment, world.truth.produced, 20, datetime.now(UTC) - timedelta(minutes=1))
    assert f"its log entry {entry} is cut off" in refusal(world.deployment.call("ingest"))
    assert world.newest_entry(name) == entry
    entry.unlink()
    ok(world.deployment.call("ingest", "--until-caught-up"))
    assert_exact(world.deployment, world.truth, check=False)


def test_a_ledger_that_lost_its_newest_plan_is_not_taken_for_one_that_never_had_it(world: _World) -> None:
    """Batch N, planned anew, would span other offsets than those that raw_notifications has of batch N."""
    world.newest_entry("ingest_batches").unlink()
    before = world.deployment.files()
    line = refusal(world.deployment.call("ingest"))
    assert "restore ingest_batches from a backup" in line
    assert world.deployment.files() == before


def test_a_table_that_another_tool_restored_is_refused_until_that_is_undone(world: _World) -> None:
    """Delta's RESTORE takes rows and leaves the watermark: whoever goes on from there never takes them again."""
    for name in WRITTEN:
        before = world.content(name)
        table = world.deployment.lake.table(name)
        entry = world.newest_entry(name)
        DeltaTable(str(table.path)).restore(table.version - 1)
        restored = world.newest_entry(name)
        assert restored != entry
        with pytest.raises(LakeError, match="is a RESTORE by another tool") as refused, world.deployment.lake as lake:
            lake.table(name)
        (line,) = world.findings()
        assert line == f"FAIL {name}: {refused.value}"
        assert line.endswith("move that file away, and the table is as it was before")
        restored.unlink()
        assert world.content(name) == before, name
    assert world.sound()


def test_a_restore_that_others_stand_on_is_named_by_check(world: _World) -> None:
    """By a version that did not look for it."""
    table = world.deployment.lake.table("notifications")
    DeltaTable(str(table.path)).restore(table.version - 1)
    restored = world.newest_entry("notifications")
    DeltaTable(str(table.path)).alter.set_table_properties({"delta.checkpointInterval": "100"})
    assert world.newest_entry("notifications") != restored
    (line,) = world.findings()
    assert f"its log entry {restored} is a RESTORE" in line
    assert line.endswith("restore the table's _delta_log from a backup, for later entries stand on it")


def test_an_entry_that_others_stand_on_is_not_to_be_moved_away(world: _World) -> None:
    newest = world.newest_entry("notifications")
    entry = newest.with_name(f"{int(newest.stem) - 1:020}.json")
    entry.write_bytes(b"")
    (line,) = world.findings()
    assert f"its log entry {entry} is cut off" in line
    assert line.endswith("restore the table's _delta_log from a backup, for later entries stand on it")
