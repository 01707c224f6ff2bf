"""The numbers of the API are those of the tables and of the command line, whatever is written meanwhile."""

import csv
import io
import json
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from fastapi.testclient import TestClient

from notif_assets.core.formats import Format, StatementFormat
from notif_assets.notifications import queries
from notif_assets.panel.app import build_app
from notif_assets.panel.snapshot import LATE_AFTER, Panel
from notif_assets.panel.tokens import Keys
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import golden, ok, until
from notif_assets_tests.cli.messages import ACME, PADARIA, notification
from notif_assets_tests.conftest import Asked, Deploy
from notif_assets_tests.panel.conftest import HOSTILE, Served, now

DAY = date(2020, 2, 3)
HOUR = "from=2020-02-03T14:00:00Z&to=2020-02-03T15:00:00Z"


def api(served: Served, path: str, customer_id: int = ACME) -> Any:
    """An answer of the API to a customer about itself."""
    answer = served.get(f"/api/v1/customers/{customer_id}/{path}", customer_id)
    assert answer.status_code == 200, answer.text
    return answer.json()


def of_table(served: Served, version: int) -> list[dict[str, Any]]:
    """customer_panel as it was at a version."""
    table = DeltaTable(str(served.deployment.lake.root / "customer_panel"), version=version)
    rows: list[dict[str, Any]] = table.to_pyarrow_table().to_pylist()
    return rows


def test_the_panel_is_the_table_and_the_command_line(served: Served) -> None:
    for customer_id in (ACME, PADARIA, HOSTILE):
        told = api(served, "panel", customer_id)
        rows = [row for row in of_table(served, told["table_version"]) if row["customer_id"] == customer_id]
        assert {c["channel"]: c["notifications"] for c in told["channels"]} == {
            row["channel"]: row["notifications"] for row in rows
        }
        assert told["updated_at"] == f"{rows[0]['updated_at']:%Y-%m-%dT%H:%M:%S.%fZ}"
        printed = ok(served.deployment.call("report", "panel", "--customer", customer_id, "--format", "json")).text
        assert {row["channel"]: row["notifications"] for row in json.loads(printed)} == {
            c["channel"]: c["notifications"] for c in told["channels"]
        }


def test_while_ingestion_writes_an_answer_is_of_one_version_and_new_within_seconds(served: Served) -> None:
    """Of the API, the page and the command line; the latter two are of a version if it is the same before and after."""
    before = api(served, "panel")
    table = str(served.deployment.lake.root / "customer_panel")
    seen: dict[int, dict[str, Any]] = {}
    on_page: dict[int, int] = {}
    printed: dict[int, int] = {}

    def look() -> None:
        told = api(served, "panel")
        seen[told["table_version"]] = told
        shown = re.search(r'id="whatsapp"[^>]*>(\d+)<', served.get(f"/clientes/{ACME}/agora").text)
        assert shown
        if api(served, "panel")["table_version"] == told["table_version"]:
            on_page[told["table_version"]] = int(shown[1])

    def call() -> None:
        version = DeltaTable(table).version()
        rows = json.loads(ok(served.deployment.call("report", "panel", "--customer", ACME, "--format", "json")).text)
        if DeltaTable(table).version() == version:
            printed[version] = sum(row["notifications"] for row in rows if row["channel"] == "Whatsapp")

    for ingest in range(3):
        served.deployment.send(
            notification(now(), f"while-{ingest}-{n}-{before['table_version']}", channel="Whatsapp") for n in range(10)
        )
        with_ingest = served.deployment.start("ingest", "--until-caught-up")
        while with_ingest.poll() is None:
            look()
            call()
        with_ingest.communicate()
    ended = datetime.now(UTC)

    def new() -> bool:
        look()
        _, rows = served.deployment.table("customer_panel")
        counted = sum(row["notifications"] for row in rows if row["customer_id"] == ACME)
        return bool(seen[max(seen)]["notifications"] == counted)

    until(new, "the newest count", 5)
    assert datetime.now(UTC) - ended < timedelta(seconds=5)
    assert min(len(versions) for versions in (seen, on_page, printed)) >= 2
    for version in {*seen, *on_page, *printed}:
        counts = {
            row["channel"]: row["notifications"] for row in of_table(served, version) if row["customer_id"] == ACME
        }
        if version in seen:
            assert {c["channel"]: c["notifications"] for c in seen[version]["channels"]} == counts
        assert on_page.get(version, counts["Whatsapp"]) == counts["Whatsapp"]
        assert printed.get(version, counts["Whatsapp"]) == counts["Whatsapp"]


def test_what_did_not_change_is_not_sent_again(served: Served) -> None:
    for path in (f"/api/v1/customers/{ACME}/panel", f"/clientes/{ACME}/agora"):
        first = served.get(path)
        again = served.get(path, If_None_Match=first.headers["ETag"])
        if again.status_code == 200:  # a minute began in between
            again = served.get(path, If_None_Match=again.headers["ETag"])
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"]
        assert served.get(path, If_None_Match='"other"').status_code == 200


def test_minutes_are_those_of_the_table(served: Served) -> None:
    start, end = now() - timedelta(hours=40), now() + timedelta(minutes=1)
    told = api(served, f"minutes?from={start:%Y-%m-%dT%H:%M:%SZ}&to={end:%Y-%m-%dT%H:%M:%SZ}", PADARIA)["minutes"]
    rows = {
        (f"{row['minute']:%Y-%m-%dT%H:%M:%SZ}", row["channel"]): row["notifications"]
        for row in served.deployment.rows("minute_aggregates")
        if row["customer_id"] == PADARIA and start <= row["minute"] < end
    }
    assert {(one["minute"], one["channel"]): one["notifications"] for one in told} == rows
    assert len(rows) >= 7
    whatsapp = api(served, f"minutes?channel=Whatsapp&from={start:%Y-%m-%dT%H:%M:%SZ}", PADARIA)["minutes"]
    assert {one["channel"] for one in whatsapp} == {"Whatsapp"}


def test_bills_are_those_of_the_books_with_their_corrections(served: Served) -> None:
    told = api(served, f"bills?from={DAY}&to={DAY}")
    (line,) = told["lines"]
    assert (line["notifications"], line["amount"], line["status"]) == (25000, "1000.00", "final")
    (adjustment,) = told["adjustments"]
    assert (adjustment["notifications_delta"], adjustment["amount_delta"], adjustment["reason"]) == (1, "0.04", "late")
    assert (adjustment["currency"], told["totals"], told["total"]) == ("BRL", {"BRL": "1000.04"}, "1000.04")
    printed = ok(served.deployment.call("report", "billing", "--date", DAY, "--customer", ACME, "--format", "csv")).text
    assert Decimal(told["total"]) == sum(Decimal(row["amount"]) for row in csv.DictReader(io.StringIO(printed)))


def test_an_open_day_is_provisional_and_today_s_bill_is_the_panel_s_count(served: Served) -> None:
    told = api(served, "bills", PADARIA)
    today = [line for line in told["lines"] if line["date"] == api(served, "panel", PADARIA)["date"]]
    assert {line["status"] for line in told["lines"]} == {"provisional"}
    assert sum(line["notifications"] for line in today) == api(served, "panel", PADARIA)["notifications"]
    hostile = served.get(f"/api/v1/customers/{HOSTILE}/bills", HOSTILE)
    assert (hostile.status_code, hostile.headers["content-type"]) == (409, "application/problem+json")
    assert "no price" in hostile.json()["detail"]


def test_reports_are_the_documents_byte_for_byte(served: Served) -> None:
    for format, name in (("text", "detailed.txt"), ("csv", "detailed.csv"), ("json", "detailed.json")):
        answer = served.get(f"/api/v1/customers/{ACME}/messages/export?{HOUR}&format={format}")
        assert answer.content.decode() == golden(name)


@pytest.mark.parametrize("format", get_args(Format))
def test_an_export_is_what_the_command_line_writes(served: Served, format: str) -> None:
    """25,000 messages: more than one slice."""
    mine = served.get(f"/api/v1/customers/{ACME}/messages/export?format={format}")
    theirs = ok(served.deployment.call("report", "detailed", "--customer", ACME, "--format", format)).out
    assert mine.content == theirs
    day = served.get(f"/clientes/{ACME}/relatorio?de={DAY}&ate={DAY}&formato={format}&canal=Whatsapp")
    assert (
        day.content
        == ok(
            served.deployment.call(
                "report", "detailed", "--customer", ACME, "--date", DAY, "--channel", "Whatsapp", "--format", format
            )
        ).out
    )


@pytest.mark.parametrize("format", get_args(StatementFormat))
def test_a_statement_is_what_the_command_line_writes(served: Served, format: str) -> None:
    month = str(DAY)[:7]
    told = served.deployment.call("report", "statement", "--customer", ACME, "--month", month, "--format", format)
    mine = served.get(f"/api/v1/customers/{ACME}/statement?month={month}&format={format}")
    assert (mine.status_code, mine.content) == (200, ok(told).out)
    on_page = served.get(f"/clientes/{ACME}/extrato?mes={month}&formato={format}", None)
    assert on_page.content == mine.content
    suffix = {"text": "txt", "csv-br": "csv"}.get(format, format)
    assert on_page.headers["content-disposition"] == f'attachment; filename="extrato-{ACME}-{month}.{suffix}"'


@pytest.mark.parametrize("format", get_args(Format))
def test_bills_of_older_months_are_what_the_command_line_writes(served: Served, format: str) -> None:
    told = served.deployment.call("report", "billing", "--date", DAY, "--customer", ACME, "--format", format)
    mine = served.get(f"/clientes/{ACME}/cobrancas?de={DAY}&ate={DAY}&formato={format}")
    assert (mine.status_code, mine.content) == (200, ok(told).out)


def test_what_a_statement_is_refused_for(served: Served) -> None:
    address = f"/api/v1/customers/{ACME}/statement"
    for month in ("2020-13", "9000-01", "1960-01"):
        assert served.get(f"{address}?month={month}").status_code == 400
    assert served.get(f"{address}?month=feb").status_code == 422
    assert served.get(f"{address}?month=2020-02", PADARIA).status_code == 404
    assert served.bare(f"{address}?month=2020-02").status_code == 401
    assert served.get(f"/clientes/{ACME}/extrato?mes=nonsense").status_code == 400
    assert served.get(f"/clientes/{ACME}/cobrancas?de=2020-02-03&ate=2020-02-01").status_code == 400
    today = f"de={now():%Y-%m-%d}&ate={now():%Y-%m-%d}"
    assert served.get(f"/clientes/{HOSTILE}/cobrancas?{today}", HOSTILE).status_code == 409
    text = served.get(f"/clientes/{HOSTILE}/extrato?mes={now():%Y-%m}&formato=text", HOSTILE).text
    assert "Sem preço ainda, não incluído: " in text


def test_pages_of_messages_together_are_the_report(served: Served) -> None:
    wanted = csv.DictReader(io.StringIO(served.get(f"/api/v1/customers/{PADARIA}/messages/export", PADARIA).text))
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = api(served, f"messages?limit=3{cursor and '&cursor='}{cursor}", PADARIA)
        found += [one["message_id"] for one in page["messages"]]
        cursor = page["next"]
    assert found == [row["message_id"] for row in wanted]
    assert len(found) >= 8
    assert Counter(found).most_common(1)[0][1] == 1


@pytest.mark.parametrize("rows", [997, 8_000, 30_000])
def test_a_page_is_read_from_few_hours(served: Served, rows: int, asked: list[Asked]) -> None:
    """Acme's 25,000 messages of a day are two a second, from eight o'clock on; two more at two o'clock, and today's."""
    found: list[dict[str, Any]] = []
    with served.deployment.lake as lake:
        after = None
        while page := queries.page(lake, ACME, None, None, None, after, rows).rows.to_pylist():
            if not found:
                read = [{hour for _, hour in question.inputs["notifications"].partitions} for question in asked]
                assert read == {997: [{8}], 8_000: [{8}, {9, 10}]}.get(rows, read)
            found += page
            after = page[-1]["event_datetime"], page[-1]["message_id"]
        whole, _ = queries.detailed(lake, ACME)
        assert found == pa.Table.from_batches(whole).to_pylist()
    assert len(found) >= 25_000


@pytest.mark.parametrize(
    "query",
    [
        "messages?cursor=x",
        "messages?cursor=W10=",
        "messages?limit=0",
        "messages?limit=501",
        "messages?from=2020-02-03",
        "messages?from=0001-01-01T00:00:00%2B14:00",
        "messages?to=9999-12-31T23:59:59-14:00",
        "minutes?from=2020-01-01T00:00:00Z",
        "minutes?to=2020-01-01T00:00:00",
        "bills?from=2020-01-02&to=2020-01-01",
        "bills?from=2000-01-01",
        "bills?to=2999-01-01",
        "messages/export?format=xml",
    ],
)
def test_a_wrong_parameter_is_a_clear_answer(served: Served, query: str) -> None:
    answer = served.get(f"/api/v1/customers/{ACME}/{query}")
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_customers_are_found_sorted_and_paged(served: Served) -> None:
    found = served.get("/api/v1/customers?q=padaria", None).json()
    assert [one["customer_id"] for one in found["customers"]] == [PADARIA]
    assert served.get(f"/api/v1/customers?q={ACME}", None).json()["total"] == 1
    by = {
        sort: [one["customer_id"] for one in served.get(f"/api/v1/customers?sort={sort}", None).json()["customers"]]
        for sort in ("id", "name", "notifications", "last_event")
    }
    assert by["id"] == sorted(by["id"])
    assert by["name"][0] == HOSTILE
    assert {len(ids) for ids in by.values()} == {3}
    assert served.get("/api/v1/customers?page=2", None).json()["customers"] == []


def test_metrics_and_health(served: Served) -> None:
    assert served.bare("/healthz").text == "ok\n"
    assert served.bare("/readyz").status_code == 200
    told = served.get("/metrics", None).text
    assert "notif_customers 3.0" in told
    assert 'notif_panel_requests_total{method="GET",route="/healthz",status="200"}' in told
    assert str(ACME) not in told


# --- when time passes -------------------------------------------------------------------------------------------------


def panel_at(served: Served, moment: datetime) -> Panel:
    """The panel of the lake as it would be read at another time."""
    return Panel(Settings(data=served.deployment.home / "data"), lambda: moment)


def test_just_after_midnight_the_day_counts_from_zero(served: Served) -> None:
    today = panel_at(served, now()).overview
    assert today.updated_at is not None
    assert today.customers[ACME].notifications > 0
    midnight = datetime.combine(today.day + timedelta(days=1), datetime.min.time(), UTC)
    panel = panel_at(served, midnight + timedelta(seconds=5))
    overview = panel.overview
    assert (overview.day, overview.updated_at) == (today.day + timedelta(days=1), today.updated_at)
    assert {customer.notifications for customer in overview.customers.values()} == {0}
    assert overview.customers[ACME].last_event == today.customers[ACME].last_event


def test_numbers_that_are_old_say_so(served: Served) -> None:
    fresh = panel_at(served, now())
    assert fresh.overview.updated_at is not None
    edge = fresh.overview.updated_at + LATE_AFTER
    assert not fresh.overview.is_late(edge)
    assert fresh.overview.is_late(edge + timedelta(seconds=1))


def test_amounts_of_two_currencies_are_shown_beside_each_other(deploy: Deploy) -> None:
    deployment, noon = deploy(1), datetime(2020, 2, 3, 12, tzinfo=UTC)
    header = "customer_id,channel,unit_price,currency,valid_from,valid_to\n"
    lists = (("usd.csv", ",Whatsapp,0.10,USD,,"), ("brl.csv", ",Whatsapp,0.25,BRL,,"), ("eur.csv", ",Whatsapp,1,EUR,,"))
    for name, price in lists:
        (deployment.home / name).write_text(f"{header}{price}\n")
    ok(deployment.call("import-prices", "usd.csv"))
    deployment.send(notification(noon + n * timedelta(days=1), f"{n}") for n in (0, 1))
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("close-day", "2020-02-03", "--to", "2020-02-04"))
    ok(deployment.call("import-prices", "brl.csv"))
    ok(deployment.call("reprice", "--from", "2020-02-03", "--to", "2020-02-03", "--reason", "contract"))
    ok(deployment.call("import-prices", "eur.csv"))
    settings = Settings(data=deployment.home / "data", panel_key="k" * 32)
    mine = {"Authorization": f"Bearer {Keys.of(settings).mint(ACME, timedelta(hours=1))}"}
    with TestClient(build_app(settings, clock=lambda: noon + timedelta(days=2))) as client:
        told = client.get(f"/api/v1/customers/{ACME}/bills", headers=mine).json()
        page = client.get(f"/clientes/{ACME}", headers=mine).text
        paper = client.get(f"/clientes/{ACME}/extrato?mes=2020-02&formato=text", headers=mine).text
    assert {code: Decimal(amount) for code, amount in told["totals"].items()} == {
        "BRL": Decimal("0.25"),
        "USD": Decimal("0.10"),
    }
    assert told["total"] is None
    assert sorted((one["currency"], one["amount_delta"]) for one in told["adjustments"]) == [
        ("BRL", "0.25"),
        ("USD", "-0.10"),
    ]
    assert '<strong id="valor-do-mes">R$ 0,25 · USD 0,10</strong>' in page
    assert re.findall(r">((?:R\$|USD|EUR) -?[\d,]+)</td></tr>", page) == [
        "EUR 0,00",
        "USD 0,10",
        "USD 0,10",
        "R$ 0,25",
        "USD -0,10",
    ]
    assert "Cobranças: USD 0,20\nAjustes: R$ 0,25 e USD -0,10\nTotal: R$ 0,25 e USD 0,10\n" in paper


def test_where_nothing_was_ever_written_nothing_is_created(tmp_path: Any) -> None:
    settings = Settings(data=tmp_path / "data", panel_key="k" * 32)
    header = {"Authorization": f"Bearer {Keys.of(settings).mint(ACME, timedelta(hours=1))}"}
    of_operator = {"Authorization": f"Bearer {Keys.of(settings).mint(None, timedelta(hours=1))}"}
    with TestClient(build_app(settings)) as client:
        assert client.get("/readyz").status_code == 503
        for path in ("panel", "minutes", "bills", "messages", "messages/export"):
            answer = client.get(f"/api/v1/customers/{ACME}/{path}", headers=header)
            assert answer.status_code == 200, (path, answer.text)
        assert client.get(f"/clientes/{ACME}", headers=header).status_code == 200
        assert client.get("/operador", headers=of_operator).status_code == 200
        assert client.get("/metrics", headers=of_operator).status_code == 200
    assert not (tmp_path / "data").exists()


def test_rejected_messages_that_can_t_be_read_stop_no_number(deploy: Deploy, caplog: pytest.LogCaptureFixture) -> None:
    deployment = deploy(1)
    deployment.send([notification(now(), "good"), notification(now(), "bad", channel="")])
    ok(deployment.call("ingest", "--until-caught-up"))
    for path in (deployment.lake.root / "rejected_notifications").rglob("*.parquet"):
        path.write_bytes(b"PAR1")
    settings = Settings(data=deployment.home / "data", panel_key="k" * 32)
    of_operator = {"Authorization": f"Bearer {Keys.of(settings).mint(None, timedelta(hours=1))}"}
    app = build_app(settings)
    with TestClient(app) as client:
        until(lambda: "rejected_notifications" in caplog.text, "a line in the log")
        assert client.get("/readyz").status_code == 200
        page = client.get("/operador", headers=of_operator)
        assert page.status_code == 200
        assert "Não puderam ser lidas" in page.text
        assert client.get(f"/api/v1/customers/{ACME}/panel", headers=of_operator).json()["notifications"] == 1
