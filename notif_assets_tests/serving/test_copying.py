"""The copy holds what the lake holds, row for row, whatever happens to the lake."""

import json
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from notif_assets.billing.closing import reprice
from notif_assets.billing.price_list import PRICE_LIST_SCHEMA
from notif_assets.billing.prices import load_prices
from notif_assets.chatbot.sessions import files_by_hour, import_hours, replace_day
from notif_assets.invoices.averages import complete_accounts, import_invoices, replace_averages
from notif_assets.maintenance.compaction import compact
from notif_assets.maintenance.erase import erase
from notif_assets.maintenance.rebuild import rebuild
from notif_assets.serving.copying import Copied, serve
from notif_assets_tests.books import close_day
from notif_assets_tests.maintenance.world import START, World
from notif_assets_tests.postgres import Server
from notif_assets_tests.serving.truth import NAMES, assert_equal

DAYS = [START.date() + timedelta(days=n) for n in range(3)]


def price_list(price: str) -> pa.Table:
    rows = [(None, channel, Decimal(price), "BRL", None, None) for channel in ("Whatsapp", "SMS")]
    return pa.table(list(zip(*rows, strict=True)), schema=PRICE_LIST_SCHEMA)


class Steps:
    """A lake and what may happen to it; each step takes a number that says which of its kinds."""

    def __init__(self, root: Path, url: str) -> None:
        self.world = World(root, serving_url=SecretStr(url), serving_chatbot=True)
        self.lake, self.settings, self.url = self.world.lake, self.world.settings, url
        self.closed: set[date] = set()
        load_prices(self.lake, price_list("0.04"))

    def serve(self, *, anew: bool = False) -> dict[str, Copied]:
        return {copied.table: copied for copied in serve(self.lake, self.settings, anew=anew)}

    def ingest(self, number: int) -> None:
        self.world.send(5 + number % 40, START + timedelta(hours=7 * number % 70), timedelta(seconds=17))
        self.world.ingest()

    def close(self, number: int) -> None:
        """Closes a day, or writes the adjustments that are due."""
        self.world.send(1, datetime.now(UTC))
        self.world.ingest()
        close_day(self.lake, self.settings, self.world.log, DAYS[number % 3], "close")
        self.closed.add(DAYS[number % 3])

    def reprice(self, number: int) -> None:
        load_prices(self.lake, price_list(f"0.0{number % 9 + 1}"))
        for day in sorted(self.closed):
            reprice(self.lake, self.settings, day, "another contract", "reprice")

    def erase(self, number: int) -> None:
        erase(self.lake, self.settings, number % 5 + 1)

    def rebuild(self, number: int) -> None:
        names = ("minute_aggregates", "customer_panel", "chatbot_reports", "invoice_window_averages")
        if self.lake.table(name := names[number % 4]).watermark:
            rebuild(self.lake, self.settings, name)

    def compact(self, number: int) -> None:
        for name in NAMES:
            compact(self.lake, name, datetime.now(UTC) + timedelta(days=number))

    def vacuum(self, number: int) -> None:
        """Takes the files that only older versions have, of some tables."""
        for name in NAMES[number % 3 :: 2]:
            if self.lake.table(name).version >= 0:
                table = DeltaTable(self.settings.lake / name)
                table.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)

    def clean_log(self, number: int) -> None:
        """Takes the log entries before the newest version, of some tables."""
        for name in NAMES[number % 2 :: 2]:
            forget_log(self.settings.lake / name)

    def invoices(self, number: int) -> None:
        lines = [f"C{n},A{n % 3}-“é”,2020-0{n % 6 + 1}-01,{n}.50" for n in range(number % 9 + 1)]
        path = self.settings.data / f"invoices{number % 3}.csv"
        path.write_text("customer,account,month,invoice\n" + "".join(f"{line}\n" for line in lines))
        import_invoices(self.lake, [path])
        complete_accounts(self.lake)
        replace_averages(self.lake, date(2020, number % 6 + 1, 1))

    def answers(self, number: int) -> None:
        day = DAYS[number % 3]
        content = {"nome": f'a\0b"{number}\n,\\.', "": "é\u2028", "\0": "x"}
        record = {"customer": "C\0", "flow": f"F{number % 2}", "session": "S" * (1 + number * 100), "content": content}
        record["timestamp"] = datetime(day.year, day.month, day.day, 3, tzinfo=UTC).isoformat()
        path = self.settings.data / "hour=03.json"
        path.write_text(json.dumps([record]))
        import_hours(self.lake, day, files_by_hour([path]))
        replace_day(self.lake, day)


def forget_log(path: Path) -> None:
    """What log clean-up does after a day."""
    if not (path / "_delta_log").exists():
        return
    table = DeltaTable(path)
    if table.version() > 0:
        table.create_checkpoint()
        for entry in (path / "_delta_log").glob("*.json"):
            if entry.stem.isdecimal() and int(entry.stem) < table.version():
                entry.unlink()


KINDS = ("ingest", "close", "reprice", "erase", "rebuild", "compact", "vacuum", "clean_log", "invoices", "answers")


@pytest.fixture
def steps(tmp_path: Path, database: str) -> Steps:
    return Steps(tmp_path, database)


# Not made smaller when they fail: each step takes a fraction of a second, and there are few of them.
@settings(
    max_examples=12,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 40), st.booleans()), min_size=4, max_size=14))
def test_the_copy_is_the_lake_after_any_steps(server: Server, happened: list[tuple[str, int, bool]]) -> None:
    url = server.new_database()
    with tempfile.TemporaryDirectory() as folder:
        steps = Steps(Path(folder), url)
        for kind, number, served in happened:
            getattr(steps, kind)(number)
            if served:
                steps.serve()
                assert_equal(url, steps.settings)
        steps.serve()
        assert_equal(url, steps.settings)
        assert steps.serve() == {}
