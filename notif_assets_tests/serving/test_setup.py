"""The copy's tables, views and role; and what is said when somebody changed them."""

import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pydantic import SecretStr, ValidationError

from notif_assets.lake import SCHEMAS
from notif_assets.serving.audit import PARTS, difference
from notif_assets.serving.copying import serve, tables_behind
from notif_assets.serving.postgres import ServingRefused, ServingUnavailable, connected
from notif_assets.settings import Settings
from notif_assets_tests.maintenance.world import START, World
from notif_assets_tests.postgres import Server, ask
from notif_assets_tests.serving.test_copying import DAYS, Steps, forget_log
from notif_assets_tests.serving.truth import assert_equal


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """A lake with something of everything; not to be changed."""
    steps = Steps(tmp_path_factory.mktemp("filled"), "postgresql://nowhere")
    for kind in ("ingest", "close", "ingest", "close", "invoices", "answers"):
        getattr(steps, kind)(0)
    return steps


@pytest.fixture
def steps(filled: Steps, tmp_path: Path, database: str) -> Steps:
    """A lake of its own like it, copied."""
    shutil.copytree(filled.settings.lake, tmp_path / "lake")
    steps = Steps(tmp_path, database)
    steps.world.log.records = {p: list(records) for p, records in filled.world.log.records.items()}
    steps.world.sent, steps.closed = filled.world.sent, set(filled.closed)
    steps.serve()
    return steps


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def differing(steps: Steps, part: int | None = None) -> dict[str, str]:
    with connected(steps.settings.serving_url) as connection:
        names = [name for (name,) in ask(steps.url, "select table_name from serving.watermarks")]
        found = {name: difference(connection, steps.lake, name, part) for name in names}
    return {name: text for name, text in found.items() if text}


# --- what is there ----------------------------------------------------------------------------------------------------


def test_every_table_and_column_says_what_it_means(steps: Steps) -> None:
    silent = ask(
        steps.url,
        "select c.relname, a.attname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
        "where n.nspname in ('serving', 'bi') and c.relkind in ('r', 'v') and c.relname not in ('layout', 'freshness') "
        "and (obj_description(c.oid) is null or col_description(c.oid, a.attnum) is null)",
    )
    assert silent == [("watermarks", "table_name")]


def test_no_two_rows_of_a_table_with_a_key_have_the_same(steps: Steps) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        run(steps.url, "insert into serving.daily_billing select * from serving.daily_billing")


def test_a_key_may_be_longer_than_an_index_holds(steps: Steps) -> None:
    channel = "".join(chr(random.randint(0x4E00, 0x9FFF)) for _ in range(2_700))
    row = steps.world.rows("daily_billing")[0] | {"channel": channel, "billing_date": DAYS[2]}
    steps.lake.table("daily_billing").append(pa.Table.from_pylist([row], schema=SCHEMAS["daily_billing"].arrow))
    steps.serve()
    assert_equal(steps.url, steps.settings)


def test_people_see_instants_in_utc_and_in_their_zone_and_money_with_its_currency(
    tmp_path: Path, database: str
) -> None:
    world = World(tmp_path, serving_url=SecretStr(database), timezone="America/Sao_Paulo")
    world.send(1, datetime(2026, 2, 3, 1, tzinfo=UTC))
    world.ingest()
    row = {"billing_date": DAYS[0], "customer_id": 1, "customer_name": "C", "channel": "SMS", "price_version": "v"}
    row |= {"adjustment_id": "a", "notifications_delta": 1, "amount_delta": Decimal("0.04"), "reason": "late"}
    row |= {"unit_price": Decimal("0.04"), "through_batch": 1, "run_id": "r", "created_at": START}
    price = {"price_version": "v", "channel": "SMS", "unit_price": Decimal("0.04"), "currency": "USD"}
    price |= {"loaded_at": START}
    for name, given in (("billing_adjustments", row), ("prices", price)):
        world.lake.table(name).append(pa.Table.from_pylist([given], schema=SCHEMAS[name].arrow))
    serve(world.lake, world.settings)
    (seen,) = set(ask(database, "select minute_utc, minute_local, minute_local_date from bi.minute_aggregates"))
    assert [str(moment) for moment in seen] == ["2026-02-03 01:00:00", "2026-02-02 22:00:00", "2026-02-02"]
    assert ask(database, "select amount_delta, currency from bi.billing_adjustments") == [(Decimal("0.04"), "USD")]


def test_people_see_a_row_for_each_answer_and_when_the_panel_was_counted(steps: Steps) -> None:
    keys = ask(steps.url, 'select session, key, value from bi.chatbot_reports order by key collate "C"')
    assert [key for _, key, _ in keys] == ["", "nome", "\ufffd"]
    panel = steps.world.rows("customer_panel")
    moments = {row["updated_at"].replace(tzinfo=None) for row in panel}
    assert set(ask(steps.url, "select updated_at_utc from bi.customer_panel")) == {(moment,) for moment in moments}
    assert ask(steps.url, "select count(*) from bi.freshness") == [(9,)]


def test_a_table_that_only_counted_further_rewrites_no_row(steps: Steps) -> None:
    before = ask(steps.url, "select xmin::text, * from serving.customer_panel order by customer_id, channel")
    fresh = ask(steps.url, "select counted_until_utc from bi.freshness where table_name = 'customer_panel'")
    steps.world.ingest()
    assert steps.serve()["customer_panel"].came == 0
    assert ask(steps.url, "select xmin::text, * from serving.customer_panel order by customer_id, channel") == before
    assert ask(steps.url, "select counted_until_utc from bi.freshness where table_name = 'customer_panel'") > fresh


def test_compaction_copies_nothing(steps: Steps) -> None:
    for number in range(3):
        steps.reprice(number)
    steps.serve()
    steps.compact(30)
    served = steps.serve()
    assert {"prices", "billing_days"} <= served.keys()
    assert {(copied.came, copied.went) for copied in served.values()} == {(0, 0)}
    assert_equal(steps.url, steps.settings)


def test_chatbot_answers_leave_when_nobody_asks_for_them_any_more(steps: Steps) -> None:
    settings = steps.settings.model_copy(update={"serving_chatbot": False})
    serve(steps.lake, settings)
    assert ask(steps.url, "select to_regclass('serving.chatbot_reports'), to_regclass('bi.chatbot_reports')") == [
        (None, None)
    ]
    assert "chatbot_reports" not in assert_equal(steps.url, settings)


def test_readers_read_the_views_and_nothing_else(steps: Steps, server: Server) -> None:
    name = steps.url.rpartition("/")[2]
    run(steps.url, f"create role reader_{name} login in role notif_bi")
    url = server.url(name, f"reader_{name}")
    assert ask(url, "select count(*) from bi.daily_billing")[0][0] > 0
    for forbidden in ("select 1 from serving.daily_billing", "delete from bi.daily_billing", "create table bi.t ()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(url, forbidden)


def test_a_user_who_may_not_make_roles_makes_the_rest(tmp_path: Path, server: Server) -> None:
    name = f"plain_{tmp_path.name.lower()}"
    run(server.url("postgres"), f"create role {name} login")
    url = server.create_database(name, owner=name).replace("postgres@", f"{name}@")
    world = World(tmp_path, serving_url=SecretStr(url))
    world.ingest()
    serve(world.lake, world.settings)
    assert_equal(url, world.settings)


# --- what somebody changed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [
        ("alter table serving.prices add column note text", True),
        ("drop view bi.prices; alter table serving.prices alter column channel type varchar(99)", True),
        ("drop table serving.prices cascade", True),
        ("drop table serving.watermarks cascade", True),
        ("delete from serving.watermarks where table_name = 'prices'", True),
        ("update serving.watermarks set version = 999 where table_name = 'prices'", True),
        ("update serving.watermarks set mark = 'another' where table_name = 'prices'", True),
        ("drop view bi.prices", False),
        ("drop schema bi cascade", False),
        ("drop schema serving cascade", False),
    ],
)
def test_a_copy_that_was_changed_by_hand_is_refused_and_made_anew_when_asked(
    steps: Steps, change: str, is_refused: bool
) -> None:
    run(steps.url, change)
    if is_refused:
        with pytest.raises(ServingRefused, match=r"serve --rebuild"):
            serve(steps.lake, steps.settings)
    steps.serve(anew=True)
    assert_equal(steps.url, steps.settings)
    assert ask(steps.url, "select count(*) from bi.prices") == ask(steps.url, "select count(*) from serving.prices")
    assert steps.serve() == {}


@pytest.mark.parametrize(
    "change", ["delete from serving.daily_billing", "update serving.daily_billing set channel = '?'"]
)
def test_rows_that_were_changed_by_hand_are_found_when_they_change(steps: Steps, change: str) -> None:
    run(steps.url, change)
    assert "daily_billing" in differing(steps)
    steps.erase(2)
    with pytest.raises(ServingRefused, match=r"serving\.daily_billing lacks .* changed by hand"):
        serve(steps.lake, steps.settings)
    # The others went on.
    assert tables_behind(steps.lake, steps.settings) == ["daily_billing"]
    steps.serve(anew=True)
    assert_equal(steps.url, steps.settings)


def test_a_row_that_was_added_by_hand_is_found_when_the_lake_brings_it(steps: Steps) -> None:
    row = steps.world.rows("daily_billing")[0] | {"billing_date": DAYS[2]}
    run(
        steps.url,
        f"insert into serving.daily_billing select '{DAYS[2]}', customer_id, customer_name, channel, "
        "notifications, unit_price, amount, currency, price_version, status, through_batch, run_id, computed_at "
        f"from serving.daily_billing where customer_id = {row['customer_id']} and channel = '{row['channel']}'",
    )
    steps.lake.table("daily_billing").append(pa.Table.from_pylist([row], schema=SCHEMAS["daily_billing"].arrow))
    with pytest.raises(ServingRefused, match=r"changed by hand"):
        serve(steps.lake, steps.settings)


def test_a_column_that_this_project_changed_since_makes_its_table_anew(steps: Steps) -> None:
    run(
        steps.url,
        "drop view bi.prices",
        "alter table serving.prices drop column valid_to",
        "update serving.layout set digest = 'of an older version'",
    )
    steps.serve()
    assert_equal(steps.url, steps.settings)


def test_what_others_built_upon_a_view_is_not_dropped(steps: Steps) -> None:
    run(steps.url, "create view public.theirs as select * from bi.prices")
    with pytest.raises(ServingRefused, match=r"drop those"):
        steps.serve(anew=True)
    assert_equal(steps.url, steps.settings)


# --- the lake ---------------------------------------------------------------------------------------------------------


def test_an_older_state_of_the_lake_is_refused(steps: Steps, tmp_path: Path) -> None:
    shutil.copytree(steps.settings.lake, tmp_path / "backup")
    steps.ingest(5)
    steps.serve()
    shutil.rmtree(steps.settings.lake)
    shutil.copytree(tmp_path / "backup", steps.settings.lake)
    with pytest.raises(ServingRefused, match=r"holds version \d+ of .*, and this lake has it up to \d+.*NOTIF_LAKE"):
        steps.serve()
    # It went on since, to the same versions and past them.
    steps.ingest(7)
    steps.ingest(8)
    with pytest.raises(ServingRefused, match=r"NOTIF_LAKE"):
        steps.serve()
    steps.serve(anew=True)
    assert_equal(steps.url, steps.settings)


@pytest.mark.parametrize("gone", ["log", "files"])
def test_a_version_that_the_lake_keeps_no_more_is_loaded_anew(steps: Steps, gone: str) -> None:
    steps.ingest(5)
    steps.rebuild(0)
    path = steps.settings.lake / "minute_aggregates"
    if gone == "log":
        forget_log(path)
    else:
        DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    assert "keeps no more" in differing(steps)["minute_aggregates"]
    copied = steps.serve()["minute_aggregates"]
    assert copied.went > 0
    assert_equal(steps.url, steps.settings)


def test_the_check_finds_any_value_that_differs_and_nothing_else(steps: Steps) -> None:
    assert differing(steps) == {}
    assert [differing(steps, part) for part in range(PARTS)] == [{}] * PARTS
    changes = {
        "minute_aggregates": "update serving.minute_aggregates set notifications = notifications + 1 where minute = "
        "(select min(minute) from serving.minute_aggregates)",
        "chatbot_reports": 'update serving.chatbot_reports set answers = answers || \'{"nome": "x"}\'',
        "customer_panel": "update serving.watermarks set shared = '{\"updated_at\": null}' "
        "where table_name = 'customer_panel'",
        "invoices": "insert into serving.invoices select * from serving.invoices limit 1",
    }
    for change in changes.values():
        run(steps.url, change)
    assert differing(steps).keys() == changes.keys()
    parts = [set(differing(steps, part)) for part in range(PARTS)]
    assert set.union(*parts) == set(changes), "the whole of history in a day"


# --- what can't be reached --------------------------------------------------------------------------------------------


def said(call: Callable[[], Any]) -> str:
    with pytest.raises((ServingRefused, ServingUnavailable)) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_can_not_be_reached_or_written_is_told_in_one_line(tmp_path: Path, server: Server) -> None:
    world = World(tmp_path)
    world.ingest()
    before = {str(path): path.stat().st_mtime_ns for path in world.settings.lake.rglob("*")}

    def told(url: str | None) -> str:
        secret = None if url is None else SecretStr(url)
        line = said(lambda: serve(world.lake, world.settings.model_copy(update={"serving_url": secret})))
        assert "hunter2" not in line
        return line

    assert "NOTIF_SERVING_URL is not set" in told(None)
    assert "can't be reached" in told("postgresql://u:hunter2@127.0.0.1:1/x")
    assert "can't be reached" in told("postgresql://u:hunter2@no.such.host.invalid/x")
    assert "does not exist" in told(f"postgresql://postgres:hunter2@127.0.0.1:{server.port}/nowhere")
    assert "does not exist" in told(f"postgresql://nobody:hunter2@127.0.0.1:{server.port}/postgres")
    assert "can't be read" in told("postgresql://u:hunter2@127.0.0.1:port/x")
    assert "can't be read" in told("postgresql://u:hun%ter2@127.0.0.1/x")
    assert "can't be read" in told("postgresql://u:hunter2@127.0.0.1/x?no_such_option=1")

    reader, database = f"reader{server.port}", f"forbidden{server.port}"
    run(server.url("postgres"), f"create role {reader} login")
    server.create_database(database)
    assert "may not write" in told(server.url(database, reader))
    run(server.url("postgres"), f"alter database {database} set default_transaction_read_only = on")
    assert "may not write" in told(server.url(database))
    latin = server.create_database("latin", encoding="'LATIN1'", template="template0", locale="'C'")
    assert "want one in UTF8" in told(latin)
    assert {str(path): path.stat().st_mtime_ns for path in world.settings.lake.rglob("*")} == before


def test_an_address_of_something_else_is_no_setting() -> None:
    with pytest.raises(ValidationError, match="postgresql://") as caught:
        Settings(serving_url=SecretStr("mysql://u:hunter2@h/d"))
    assert "hunter2" not in str(caught.value)


def test_psycopg_is_asked_for_only_where_there_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    world = World(tmp_path, serving_url=SecretStr("postgresql://localhost/x"))
    assert "pip install 'notif-assets[serving]'" in said(lambda: serve(world.lake, world.settings))
