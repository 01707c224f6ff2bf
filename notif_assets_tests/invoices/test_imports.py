"""Invoices and their averages: the document's table, hostile imports and any history against plain Python."""

import gzip
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from decimal import ROUND_DOWN, Decimal
from functools import partial
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notif_assets.defs.assets.inbox import no_rows_are_set_aside, rejected_file_rows
from notif_assets.defs.assets.invoices import averages_equal_a_plain_calculation, invoice_window_averages, invoices
from notif_assets.defs.partitions import invoice_months, key_ranges
from notif_assets.inbox.listing import invoice_files
from notif_assets.inbox.rows import FileRefused
from notif_assets.inbox.source_files import rows_set_aside
from notif_assets.invoices.averages import (
    averages,
    averages_now,
    complete_accounts,
    forget_invoices,
    import_invoices,
    materialized_months,
    months_affected,
    months_that_differ,
    months_without_windows,
    replace_averages,
)
from notif_assets.invoices.parsing import INVOICES_SCHEMA
from notif_assets.lake import Lake
from notif_assets.maintenance.rebuild import rebuild
from notif_assets.reports.files import write_atomically
from notif_assets.settings import Settings

HEADER = "customer,account,month,invoice\n"
JANUARY = date(2020, 1, 1)
DOCUMENT = {
    "A1100": (Decimal("56333.33"), Decimal("41416.66")),
    "A1200": (Decimal("50666.66"), None),
    "A1300": (None, None),
    "A2100": (Decimal("55400.00"), None),
}
SAMPLE = Path(str(files("notif_assets") / "samples" / "invoices.csv"))


def settings_of(tmp_path: Path) -> Settings:
    roots: dict[str, Any] = {f"{name}_root": tmp_path / name for name in ("lake", "inbox", "reports")}
    return Settings(**roots)


def run_invoices(lake: Lake, tmp_path: Path, paths: Sequence[Path] = ()) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [rejected_file_rows, invoices],
        resources={"lake": lake, "settings": settings_of(tmp_path)},
        run_config={"ops": {"invoices": {"config": {"files": [str(path) for path in paths]}}}},
        raise_on_error=False,
    )


def run_averages(lake: Lake, tmp_path: Path, first: str, last: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [invoices, invoice_window_averages, averages_equal_a_plain_calculation],
        selection=dg.AssetSelection.assets(invoice_window_averages),
        resources={"lake": lake, "settings": settings_of(tmp_path)},
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        raise_on_error=False,
    )


def rows_of(lake: Lake, name: str, **bounds: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.rows(lake.table(name).scan(**bounds)).to_pylist()
    return rows


def invoice_rows(lake: Lake) -> list[tuple[Any, ...]]:
    return sorted(tuple(row.values()) for row in rows_of(lake, "invoices"))


def csv_file(folder: Path, name: str, lines: Iterable[str], header: str = HEADER) -> Path:
    path = folder / name
    path.write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# The document


def test_months_hold_the_documents_averages(lake: Lake, tmp_path: Path) -> None:
    assert run_invoices(lake, tmp_path, [SAMPLE]).success
    result = run_averages(lake, tmp_path, "2019-12-01", "2020-02-01")
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "published_averages_hold": True,
        "averages_equal_a_plain_calculation": True,
    }
    rows = rows_of(lake, "invoice_window_averages", reference_month=(JANUARY, date(2020, 2, 1)))
    assert {row["account"]: tuple(row.values())[-2:] for row in rows} == DOCUMENT
    without = {
        event.partition: event.materialization.metadata["accounts_without_3_months"].value
        for event in result.get_asset_materialization_events()
    }
    assert without == {"2019-12-01": 3, "2020-01-01": 1, "2020-02-01": 4}


def test_each_month_has_its_report_files(lake: Lake, tmp_path: Path) -> None:
    run_invoices(lake, tmp_path, [SAMPLE])
    run_averages(lake, tmp_path, "2020-01-01", "2020-02-01")
    folder = tmp_path / "reports" / "invoice-averages"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"2020-{month}.{suffix}" for month in ("01", "02") for suffix in ("csv", "parquet", "txt")
    ]
    assert (folder / "2020-01.csv").read_text() == (
        "customer,account,avg_invoices_last_3_months,avg_invoices_last_6_months\n"
        "C1000,A1100,56333.33,41416.66\n"
        "C1000,A1200,50666.66,\n"
        "C1000,A1300,,\n"
        "C2000,A2100,55400.00,\n"
    )
    assert "56.333,33" in (folder / "2020-01.txt").read_text()


class RoundingLake(Lake):
    """A lake whose averages are rounded, as somebody's next version might."""

    def select(self, name: str, inputs: Any, **parameters: object) -> pa.Table:
        rows = super().select(name, inputs, **parameters)
        if name != "invoice_window_averages":
            return rows
        place = rows.column_names.index("avg_invoices_last_6_months")
        rounded = [value and value + Decimal("0.01") for value in rows.column(place).to_pylist()]
        return rows.set_column(place, rows.column_names[place], pa.array(rounded, pa.decimal128(18, 2)))


def test_nothing_is_written_when_the_published_example_fails(lake: Lake, tmp_path: Path) -> None:
    run_invoices(lake, tmp_path, [SAMPLE])
    result = run_averages(RoundingLake(lake.root), tmp_path, "2020-01-01", "2020-01-01")
    assert not result.success
    (gate,) = result.get_asset_check_evaluations()
    assert (gate.check_name, gate.passed) == ("published_averages_hold", False)
    assert gate.metadata["accounts_that_differ"].value == ["A1100"]
    assert not (lake.root / "invoice_window_averages").exists()
    assert not (tmp_path / "reports").exists()


# Imports


def test_importing_twice_leaves_the_same_rows(lake: Lake) -> None:
    import_invoices(lake, [SAMPLE])
    first = invoice_rows(lake)
    assert import_invoices(lake, [SAMPLE, SAMPLE]).imported_rows == 15
    assert invoice_rows(lake) == first
    assert len(first) == 15


def test_several_invoices_of_a_month_are_replaced_together(lake: Lake, tmp_path: Path) -> None:
    import_invoices(lake, [csv_file(tmp_path, "a.csv", ["C,A,2020-01-01,1", "C,A,2020-01-01,1", "C,B,2020-01-01,5"])])
    assert len(invoice_rows(lake)) == 3
    import_invoices(lake, [csv_file(tmp_path, "b.csv", ["C,A,2020-01-01,-7"])])
    assert [row[1:4] for row in invoice_rows(lake)] == [
        ("A", date(2020, 1, 1), Decimal("-7.00")),
        ("B", date(2020, 1, 1), Decimal("5.00")),
    ]


def test_bad_rows_are_set_aside_with_place_and_reason(lake: Lake, tmp_path: Path) -> None:
    lines = [
        "C,A,2020-01-01,1",
        "C,A,2020-01-15,2",
        "C,A,2020-02-01,1.005",
        "",
        'C,"A"x,2020-02-01,1',
        "C,A,2020-03-01,3",
    ]
    path = csv_file(tmp_path, "it's.csv", lines)
    result = run_invoices(lake, tmp_path, [path])
    assert result.success
    rejected = rows_set_aside(lake, [path.name]).to_pylist()
    assert [(row["source_file"], row["source_line"], row["reason"]) for row in rejected] == [
        ("it's.csv", 3, "bad_month"),
        ("it's.csv", 4, "bad_number"),
        ("it's.csv", 5, "blank_line"),
        ("it's.csv", 6, "stray_quote"),
    ]
    told = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert told["invoices"]["rejected_rows"].value == 4
    assert told["invoices"]["imported_months"].value == ["2020-01-01", "2020-03-01"]
    assert told["rejected_file_rows"]["rejected_rows_by_reason"].value == dict.fromkeys(
        ("bad_month", "bad_number", "blank_line", "stray_quote"), 1
    )
    assert "2020-03-01" in str(told["invoices"]["preview"].value)

    import_invoices(lake, [csv_file(tmp_path, "other.csv", ["C,A,never,1"])])
    import_invoices(lake, [csv_file(tmp_path, "it's.csv", ["C,A,2020-01-01,1"])])  # mended
    assert [row["source_file"] for row in rows_of(lake, "rejected_file_rows")] == ["other.csv"]


@pytest.mark.parametrize("content", [b"customer,account,month\nC,A,2020-01-01\n", b"", b"\x00\x01PK"])
def test_a_refused_file_leaves_nothing(lake: Lake, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(FileRefused, match=r"bad\.csv"):
        import_invoices(lake, [SAMPLE, tmp_path / "bad.csv"])
    with pytest.raises(FileRefused, match=r"gone\.csv"):
        import_invoices(lake, [SAMPLE, tmp_path / "gone.csv"])
    result = run_invoices(lake, tmp_path, [SAMPLE, tmp_path / "bad.csv"])
    assert "Nothing was imported" in result.failure_data_for_node("invoices").error.message  # type: ignore[union-attr]
    assert not lake.root.exists()


def test_without_config_the_inbox_is_imported_oldest_first(lake: Lake, tmp_path: Path) -> None:
    assert not run_invoices(lake, tmp_path).success
    inbox = tmp_path / "inbox" / "invoices"
    inbox.mkdir(parents=True)
    for name in ("b.csv", "a.csv"):
        csv_file(inbox, name, [f"C,{name},2020-01-01,1", "C,A,2020-01-01,1"])
    os.utime(inbox / "b.csv", (1, 1))
    assert run_invoices(lake, tmp_path).success
    assert [(row[1], row[4]) for row in invoice_rows(lake)] == [("A", "a.csv"), ("a.csv", "a.csv"), ("b.csv", "b.csv")]


def _import_one_by_one(root: Path, paths: list[Path]) -> None:
    for path in paths:
        import_invoices(Lake(root), [path])


def test_two_processes_importing_at_once_lose_nothing(lake: Lake, tmp_path: Path) -> None:
    paths = [
        csv_file(tmp_path, f"{name}.csv", [f"C,{name},2020-01-01,{name}", "C,A,nothing,1", f"C,{name},2020-03-01,1"])
        for name in range(12)
    ]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(partial(_import_one_by_one, lake.root), [paths[:6], paths[6:]]))
    assert sorted(int(row[1]) for row in invoice_rows(lake)) == sorted([*range(12)] * 2)
    assert {row["source_file"] for row in rows_of(lake, "rejected_file_rows")} == {path.name for path in paths}


# Averages


def test_a_new_account_appears_in_the_months_already_there_and_nothing_else_is_computed(
    lake: Lake, tmp_path: Path
) -> None:
    import_invoices(lake, [SAMPLE])
    for month in (JANUARY, date(2020, 2, 1)):
        replace_averages(lake, month)
    before = sorted(rows_of(lake, "invoice_window_averages"), key=repr)
    assert run_invoices(lake, tmp_path, [csv_file(tmp_path, "new.csv", ["C3000,A3100,2021-05-01,1"])]).success
    after = sorted(rows_of(lake, "invoice_window_averages"), key=repr)
    assert [row for row in after if row["customer"] != "C3000"] == before
    assert [tuple(row.values())[1:] for row in after if row["customer"] == "C3000"] == [
        ("C3000", "A3100", None, None)
    ] * 2
    assert months_that_differ(lake) == complete_accounts(lake) == []

    forget_invoices(lake, ["new.csv"])
    assert months_that_differ(lake) == complete_accounts(lake) == [JANUARY, date(2020, 2, 1)]
    assert months_that_differ(lake) == []
    assert sorted(rows_of(lake, "invoice_window_averages"), key=repr) == before


def test_the_plain_calculation_finds_what_is_wrong(lake: Lake, tmp_path: Path) -> None:
    import_invoices(lake, [SAMPLE])
    rows = replace_averages(lake, JANUARY)
    lake.table("invoice_window_averages").replace(rows.slice(1), where="reference_month = '2020-01-01'")
    (check,) = dg.materialize(
        [invoices, invoice_window_averages, averages_equal_a_plain_calculation],
        selection=dg.AssetSelection.checks(averages_equal_a_plain_calculation),
        resources={"lake": lake, "settings": settings_of(tmp_path)},
    ).get_asset_check_evaluations()
    assert (check.passed, check.metadata["differ"].value) == (False, ["2020-01-01"])


def test_months_affected_are_the_six_after() -> None:
    assert months_affected([date(2019, 9, 1), date(2019, 10, 1)]) == [
        *(date(2019, month, 1) for month in (10, 11, 12)),
        *(date(2020, month, 1) for month in (1, 2, 3, 4)),
    ]


def test_key_ranges_are_the_fewest() -> None:
    keys = ["2020-02-01", "2019-12-01", "2020-01-01", "2020-04-01", "1999-01-01"]
    assert [(r.start, r.end) for r in key_ranges(invoice_months, keys)] == [
        ("2019-12-01", "2020-02-01"),
        ("2020-04-01", "2020-04-01"),
    ]


def test_a_report_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    def whole(out: BinaryIO) -> None:
        out.write(b"whole")

    def broken(out: BinaryIO) -> None:
        out.write(b"half")
        raise RuntimeError

    path = tmp_path / "reports" / "2020-01.txt"
    write_atomically(path, whole)
    with pytest.raises(RuntimeError):
        write_atomically(path, broken)
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


cents = st.integers(-(10**15) + 1, 10**15 - 1).map(lambda c: Decimal(c).scaleb(-2))
account = st.tuples(st.sampled_from(["C1", 'C,"2']), st.sampled_from(["A1", "a1", "=Aç'3"]))
month = st.integers(-1, 14).map(lambda n: months_before(JANUARY, n))


def months_before(reference_month: date, n: int) -> date:
    total = reference_month.year * 12 + reference_month.month - 1 - n
    return date(total // 12, total % 12 + 1, 1)


def every_month(key: tuple[str, str], invoices: list[Decimal]) -> list[tuple[tuple[str, str], date, Decimal]]:
    return [(key, months_before(JANUARY, n), invoice) for n, invoice in enumerate(invoices, start=1)]


# Single invoices anywhere, and accounts with all months up to December: without these few windows would be complete.
anywhere = st.lists(st.tuples(account, month, cents), max_size=20)
complete = st.lists(st.builds(every_month, account, st.lists(cents, min_size=2, max_size=7)), max_size=3)
rows = st.tuples(anywhere, complete).map(lambda both: [*both[0], *chain(*both[1])]).flatmap(st.permutations)
History = list[tuple[tuple[str, str], date, Decimal]]


def averages_of(history: History, n: int) -> dict[tuple[str, str], Decimal | None]:
    """The averages by definition, in plain Python."""
    totals: dict[tuple[str, str], dict[date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for key, when, invoice in history:
        totals[key][when] += invoice
    window = [months_before(JANUARY, back) for back in range(1, n + 1)]
    return {
        key: (sum((by_month[m] for m in window), Decimal(0)) / n).quantize(Decimal("0.01"), ROUND_DOWN)
        if all(m in by_month for m in window)
        else None
        for key, by_month in totals.items()
    }


def assert_averages(got: pa.Table, history: History) -> None:
    by_account = {(row["customer"], row["account"]): tuple(row.values())[-2:] for row in got.to_pylist()}
    three, six = averages_of(history, 3), averages_of(history, 6)
    assert by_account == {key: (three[key], six[key]) for key in three}
    assert got.num_rows == len(three)


@given(rows)
@example(every_month(("C", "A"), [Decimal("-0.50"), Decimal("-0.25"), Decimal("-0.25")]))  # -0.333…: towards zero
def test_any_history_against_plain_python(history: History) -> None:
    table = pa.Table.from_pylist(
        [
            {"customer": c, "account": a, "month": m, "invoice": i, "source_file": "f", "source_line": n}
            for n, ((c, a), m, i) in enumerate(history)
        ],
        schema=INVOICES_SCHEMA,
    )
    assert_averages(averages(Lake(Path("nowhere")), table, JANUARY), history)


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@settings(max_examples=25)
@given(st.lists(st.lists(rows, min_size=1, max_size=3), min_size=1, max_size=3))
def test_any_imports_in_any_order_last_file_wins(imports: list[list[History]]) -> None:
    held: dict[tuple[tuple[str, str], date], list[Decimal]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        for number, one in enumerate(imports):
            paths = []
            for place, history in enumerate(one):
                lines = [f"{quoted(c)},{quoted(a)},{m},{i}" for (c, a), m, i in history]
                paths.append(csv_file(Path(folder), f"{number}-{place}.csv", lines))
                replaced: dict[tuple[tuple[str, str], date], list[Decimal]] = defaultdict(list)
                for key, when, invoice in history:
                    replaced[key, when].append(invoice)
                held |= replaced
            import_invoices(lake, paths)
        expected = [(key, when, invoice) for (key, when), values in held.items() for invoice in values]
        got = [((row[0], row[1]), row[2], row[3]) for row in invoice_rows(lake)]
        assert Counter(got) == Counter(expected)
        assert_averages(replace_averages(lake, JANUARY), expected)
        assert months_that_differ(lake) == []


def test_a_month_at_the_end_of_the_calendar_poisons_no_import(lake: Lake, tmp_path: Path) -> None:
    """It is set aside; a row that an earlier version took counts in no average and costs no other one."""
    row = {"customer": "C", "account": "A9", "month": date(9999, 12, 1), "invoice": Decimal(1)}
    row |= {"source_file": "old.csv", "source_line": 2}
    lake.table("invoices").append(pa.Table.from_pylist([row], schema=INVOICES_SCHEMA))
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "C,A1,2019-12-01,100\nC,A2,9999-07-01,1\n")
    imported = import_invoices(lake, [path])
    assert imported.rejected["reason"].to_pylist() == ["bad_month"]
    months = months_affected([date(9999, 12, 1), date(2019, 12, 1)])
    assert months == [date(2020, n, 1) for n in range(1, 7)]
    rebuild(lake, settings_of(tmp_path), "invoice_window_averages")
    assert materialized_months(lake) == months
    assert months_that_differ(lake) == []
    assert months_without_windows(lake) == [date(9999, 12, 1)]


def test_a_name_with_blanks_that_was_taken_once_is_replaced_by_the_one_without(lake: Lake, tmp_path: Path) -> None:
    row = {"customer": " C", "account": "A1\u00a0", "month": date(2019, 12, 1), "invoice": Decimal(1)}
    row |= {"source_file": "old.csv", "source_line": 2}
    lake.table("invoices").append(pa.Table.from_pylist([row], schema=INVOICES_SCHEMA))
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "C,A1 ,2019-12-01,100\n")
    import_invoices(lake, [path])
    assert [(r["account"], r["invoice"]) for r in rows_of(lake, "invoices")] == [("A1", 100)]


def test_files_of_the_same_name_each_keep_what_was_set_aside(lake: Lake, tmp_path: Path) -> None:
    paths = [tmp_path / year / "invoices.csv" for year in ("2019", "2020")]
    for path, month in zip(paths, ("bad", "2020-01-01"), strict=True):
        path.parent.mkdir()
        path.write_text(f"{HEADER}C,A1,{month},100\n")
    import_invoices(lake, [*paths, *paths])
    (row,) = rows_of(lake, "rejected_file_rows")
    assert (row["source_file"], row["source_line"]) == ("2019/invoices.csv", 2)
    assert {row["source_file"] for row in rows_of(lake, "invoices")} == {"2020/invoices.csv"}


def test_a_refused_file_of_the_inbox_keeps_no_other_one_out_by_hand_either(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox" / "invoices"
    inbox.mkdir(parents=True)
    (inbox / "a.csv").write_text("no,such,columns\n")
    (inbox / "b.csv").write_text(HEADER + "C,A1,2019-12-01,100\n")
    (inbox / os.fsdecode(b"fatura\xe7.csv")).write_text(HEADER)
    (inbox / "gone.csv").symlink_to("nowhere")
    result = run_invoices(lake, tmp_path)
    assert not result.success
    assert len(rows_of(lake, "invoices")) == 1


def test_a_file_of_the_inbox_that_is_refused_is_told_until_it_is_taken(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox" / "invoices"
    inbox.mkdir(parents=True)
    (inbox / "a.csv").write_text("no,such,columns\n")
    assert not run_invoices(lake, tmp_path).success
    (inbox / "b.csv").write_text(HEADER + "C,A1,2019-12-01,100\n")
    assert not run_invoices(lake, tmp_path).success
    (row,) = rows_of(lake, "rejected_file_rows")
    assert (row["source_file"], row["source_line"], row["reason"]) == ("a.csv", 0, "file_refused")
    told = no_rows_are_set_aside(lake)
    assert isinstance(told, dg.AssetCheckResult)
    assert "a.csv (1)" in str(told.description)
    (inbox / "a.csv").write_text(HEADER + "C,A1,2019-11-01,100\n")
    assert run_invoices(lake, tmp_path).success
    assert rows_of(lake, "rejected_file_rows") == []


# What replaces what


def test_an_import_says_how_many_rows_of_which_file_it_replaces(lake: Lake, tmp_path: Path) -> None:
    first = csv_file(
        tmp_path, "a.csv", ["C,A,2019-10-01,100", "C,A,2019-11-01,50", "C,A,2019-11-01,50", "C,B,2019-11-01,1"]
    )
    assert import_invoices(lake, [first]).replaced == []
    assert import_invoices(lake, [first]).replaced == []  # the same rows again are no news
    notes = csv_file(tmp_path, "notes.csv", ["C,A,2019-11-01,-30"])
    result = run_invoices(lake, tmp_path, [notes])
    told = [
        e.materialization.metadata for e in result.get_asset_materialization_events() if e.asset_key == invoices.key
    ]
    assert told[0]["replaced_rows"].value == ["notes.csv replaces 2 rows of a.csv"]
    csv_file(tmp_path, "a.csv", ["C,A,2019-10-01,200", "C,B,2019-11-01,1"])
    assert list(map(str, import_invoices(lake, [first]).replaced)) == ["a.csv replaces 1 rows of a.csv"]
    both = [csv_file(tmp_path, "b.csv", ["D,A,2019-11-01,1"]), csv_file(tmp_path, "c.csv", ["D,A,2019-11-01,1"])]
    assert list(map(str, import_invoices(lake, both).replaced)) == ["c.csv replaces 1 rows of b.csv"]
    assert [str(row[3]) for row in invoice_rows(lake) if row[0] == "D"] == ["1.00"]


def test_an_import_is_taken_back(lake: Lake, tmp_path: Path) -> None:
    good = csv_file(tmp_path, "good.csv", ["C,A,2019-10-01,1", "C,A,2019-11-01,2", "C,A,2019-12-01,3"])
    import_invoices(lake, [good])
    before = invoice_rows(lake)
    replace_averages(lake, JANUARY)
    bad = csv_file(tmp_path, "bad.csv", ["C,A,2019-12-01,x", "C,B,2019-12-01,5", "C,B,2019-12-01,6"])
    import_invoices(lake, [bad])
    assert forget_invoices(lake, ["bad.csv"]) == (2, [date(2019, 12, 1)])
    assert invoice_rows(lake) == before
    assert rows_of(lake, "rejected_file_rows") == []
    assert months_that_differ(lake) == []
    with pytest.raises(ValueError, match=r"nothing of a file named none\.csv is in the lake; files there: good\.csv"):
        forget_invoices(lake, ["good.csv", "none.csv"])
    assert invoice_rows(lake) == before


# What is known in part


def one_average(lake: Lake, account: str = "A") -> Decimal | None:
    by_account = {row["account"]: row["avg_invoices_last_3_months"] for row in averages_now(lake, JANUARY).to_pylist()}
    replace_averages(lake, JANUARY)
    assert months_that_differ(lake) == []
    value: Decimal | None = by_account[account]
    return value


WHOLE = ["C,A,2019-10-01,100", "C,A,2019-11-01,100", "C,A,2019-12-01,100"]


@pytest.mark.parametrize(
    "line",
    [
        'C,A,2019-12-01,"1.200,00"',
        "C,A,2019-12-01,1.200,00",
        " C,A ,2019-12-01,",
        'C,A,2019-12-01,"1',
        "C,A,12/2019,x",
        "C,A,2019-12-01",
    ],
)
@pytest.mark.parametrize("when", ["with the others", "before them", "after them", "alone, after them"])
def test_a_month_of_which_a_line_was_set_aside_has_no_average(lake: Lake, tmp_path: Path, line: str, when: str) -> None:
    whole = csv_file(tmp_path, "whole.csv", WHOLE)
    other = "C,A,2019-12-01,7"
    part = csv_file(tmp_path, "part.csv", [line] if when.startswith("alone") else [other, line])
    mixed = csv_file(tmp_path, "mixed.csv", [*WHOLE, line])
    for path in {"with the others": [mixed], "before them": [part, whole]}.get(when, [whole, part]):
        import_invoices(lake, [path])
    assert one_average(lake) == (100 if when == "before them" else None)
    import_invoices(lake, [part])
    assert one_average(lake) is None
    import_invoices(lake, [csv_file(tmp_path, "part.csv", ["C,B,2019-12-01,1"])])
    assert one_average(lake) is None  # another file of that name says nothing of the month
    import_invoices(lake, [whole])
    assert one_average(lake) == 100


def test_files_of_one_import_mark_each_other_as_if_they_came_one_by_one(lake: Lake, tmp_path: Path) -> None:
    whole, part = csv_file(tmp_path, "whole.csv", WHOLE), csv_file(tmp_path, "part.csv", ["C,A,2019-12-01,x"])
    import_invoices(lake, [whole, part])
    assert one_average(lake) is None
    import_invoices(lake, [part, whole])
    assert one_average(lake) == 100


def test_a_check_knows_what_is_set_aside(lake: Lake, tmp_path: Path) -> None:
    def check() -> dg.AssetCheckResult:
        result = no_rows_are_set_aside(lake)
        assert isinstance(result, dg.AssetCheckResult)
        return result

    assert check().passed
    import_invoices(lake, [csv_file(tmp_path, "a.csv", [*WHOLE, "C,A,2019-12-01,x", "C,A,never,1"])])
    found = check()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == (
        "2 rows are set aside, of a.csv (2): mend the file and import it again; 1 months of accounts have no average, "
        "since a line was set aside of a.csv (1): import them whole, or take the file back with "
        "`import-invoices --forget FILE`"
    )
    import_invoices(lake, [csv_file(tmp_path, "a.csv", WHOLE)])
    assert check().passed


# Any size, any door


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of eight times as many lines takes hardly more: they are written down piece by piece."""

    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.csv"
        with path.open("w") as file:
            file.write(HEADER)
            for n in range(lines):
                file.write(f"customer-{n % 5000},account-{n % 70000},20{10 + n % 10}-{1 + n % 12:02}-01,{n}.50\n")
        code = (
            "import resource, sys; from pathlib import Path; from notif_assets.lake import Lake; "
            "from notif_assets.invoices.averages import import_invoices; "
            "print(import_invoices(Lake(Path(sys.argv[2]), memory='200MB'), [Path(sys.argv[1])]).imported_rows, "
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, path, tmp_path / f"lake-{lines}"], capture_output=True, text=True, check=True
        )
        taken, kilobytes = map(int, done.stdout.split())
        assert taken == lines
        return kilobytes // 1024

    little, much = peak(50_000), peak(400_000)
    assert much < little + 250, (little, much)  # before: 19 bytes of memory for each of the file, 270 MiB more


def test_a_packed_file_is_taken(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "jan.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "C,A,2019-12-01,100\n").encode()))
    assert import_invoices(lake, [path]).imported_rows == 1
    assert invoice_rows(lake)[0][4] == "jan.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileRefused, match="packed by gzip, and damaged or cut short"):
        import_invoices(lake, [path])
    path.write_bytes(gzip.compress(b"x" * 20_000))
    with pytest.raises(FileRefused, match="unpacked it is larger than NOTIF_MAX_FILE_BYTES, 1,000 bytes"):
        import_invoices(lake, [path], most=1000)


def test_nothing_waits_for_a_pipe_or_follows_a_link_out_of_the_inbox(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox" / "invoices"
    inbox.mkdir(parents=True)
    secret = csv_file(tmp_path, "secret.csv", WHOLE)
    (inbox / "link.csv").symlink_to(secret)
    os.mkfifo(inbox / "pipe.csv")
    (inbox / "large.csv").write_text(HEADER + "x" * 5000)
    good = csv_file(inbox, "good.csv", ["C,A,2019-12-01,1"])
    (inbox / "same.csv").symlink_to(good)
    for name, why in {
        "link.csv": "is a link out of the inbox",
        "pipe.csv": "is no file",
        "large.csv": "is larger than NOTIF_MAX_FILE_BYTES, 5,000 bytes",
    }.items():
        with pytest.raises(FileRefused, match=why):
            import_invoices(lake, [inbox / name], inside=inbox, most=5000)
    assert import_invoices(lake, [inbox / "same.csv"], inside=inbox).imported_rows == 1
    assert import_invoices(lake, [secret], inside=inbox).imported_rows == 3  # given by hand, it lies elsewhere
    taken, left = invoice_files(inbox, math.inf, 5000)
    assert sorted(file.path.name for file in taken) == ["good.csv", "same.csv"]
    assert left == [
        "large.csv (is larger than NOTIF_MAX_FILE_BYTES, 5,000 bytes)",
        "link.csv (is a link out of the inbox)",
        "pipe.csv (is no file)",
    ]
