"""What a chart says of a period is what the bills of its closed days and the minutes of its open days say.

Belongs here: periods of a business of some months, against plain Python. Doesn't: today's hours in other zones
(test_hours.py), how it looks (test_pages.py).
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.core.days import days_between
from notif_assets.lake import Lake
from notif_assets.panel.access import Refused
from notif_assets.panel.app import build_app
from notif_assets.panel.snapshot import Panel
from notif_assets.panel.tokens import Keys
from notif_assets.panel.usage import Period, period_of, usage
from notif_assets.settings import Settings
from notif_assets_tests.cli.messages import ACME, PADARIA
from notif_assets_tests.conftest import Asked
from notif_assets_tests.panel.business import Business, amount

NOW = datetime(2026, 3, 10, 17, 23, 41, tzinfo=UTC)
TODAY = NOW.date()
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
PAGE = f"/clientes/{ACME}"


@pytest.fixture(scope="module")
def business() -> Business:
    """Of 100 days, the last three with their minutes."""
    return Business(NOW, days=100, customers=3)


@pytest.fixture(scope="module")
def settings(business: Business, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of its lake."""
    settings = Settings(data=tmp_path_factory.mktemp("business"), panel_key="k" * 32)
    business.write(settings)
    return settings


@pytest.fixture(scope="module")
def panel(settings: Settings) -> Panel:
    """Its panel."""
    return Panel(settings, lambda: NOW)


def counts_of(panel: Panel, customer: int | None, period: Period) -> list[Counter[str]]:
    """Per step what the panel counts of each channel."""
    found = usage(panel.view, ZoneInfo("UTC"), customer, period, NOW)
    assert not found.uncounted
    return [
        +Counter({name: int(counts[at]) for name, counts in found.counts.items()}) for at in range(len(found.starts))
    ]


def of_day(business: Business, day: date, customer: int | None) -> Counter[str]:
    """What is billed of a closed day, and counted of an open one."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    closed = day < TODAY - DAY
    return business.billed(day, customer) if closed else business.counted(start, start + DAY, customer)


@pytest.mark.parametrize("customer", [ACME, PADARIA, None])
@pytest.mark.parametrize("name", ["semana", "mes"])
def test_days_are_as_billed_and_open_days_as_counted(
    panel: Panel, business: Business, customer: int | None, name: Any
) -> None:
    period = period_of(TODAY, name, None, None)
    wanted = [of_day(business, day, customer) for day in days_between(period.first, period.last)]
    assert counts_of(panel, customer, period) == wanted
    assert len(wanted) == {"semana": 7, "mes": 10}[name]
    assert all(wanted)


@pytest.mark.parametrize("customer", [ACME, None])
def test_a_long_period_is_counted_by_month(panel: Panel, business: Business, customer: int | None) -> None:
    period = period_of(TODAY, None, TODAY - 99 * DAY, TODAY)
    wanted: dict[date, Counter[str]] = {}
    for day in days_between(period.first, period.last):
        wanted.setdefault(day.replace(day=1), Counter()).update(of_day(business, day, customer))
    assert counts_of(panel, customer, period) == list(wanted.values())
    assert len(wanted) == 4


@pytest.mark.parametrize("customer", [ACME, None])
@pytest.mark.parametrize("back", [0, 1, 2])
def test_one_day_is_counted_by_hour(panel: Panel, business: Business, customer: int | None, back: int) -> None:
    day = TODAY - back * DAY
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    wanted = [business.counted(start + at * HOUR, start + (at + 1) * HOUR, customer) for at in range(24)]
    assert counts_of(panel, customer, period_of(TODAY, None, day, day)) == wanted
    assert sum(map(bool, wanted)) > 17


@pytest.mark.parametrize("customer", [ACME, None])
def test_the_last_hour_is_counted_by_minute(panel: Panel, business: Business, customer: int | None) -> None:
    minute = NOW.replace(second=0)
    starts = [minute - at * timedelta(minutes=1) for at in reversed(range(60))]
    wanted = [business.counted(at, at + timedelta(minutes=1), customer) for at in starts]
    assert counts_of(panel, customer, period_of(TODAY, "hora", None, None)) == wanted
    assert any(wanted)


def test_a_month_of_closed_days_is_read_once(settings: Settings, asked: list[Asked]) -> None:
    panel = Panel(settings, lambda: NOW)
    panel.refresh()
    asked.clear()
    for _ in range(2):
        for first in (TODAY - 99 * DAY, TODAY - 80 * DAY):
            counts_of(panel, ACME, period_of(TODAY, None, first, TODAY))
    questions = Counter(question.name for question in asked)
    assert questions["billed_days"] == 4
    assert questions["customer_counts"] == 0
    assert max(len(question.inputs["lines"].files) for question in asked if question.name == "billed_days") <= 31


def test_open_days_are_counted_and_too_many_are_named(tmp_path: Path, asked: list[Asked]) -> None:
    business = Business(NOW, days=40, customers=1, minutes_of_days=40)
    settings = Settings(data=tmp_path, panel_key="k" * 32)
    business.lines.clear()
    business.adjustments.clear()
    business.write(settings)
    with Lake(settings.lake) as lake:
        table = lake.table("billing_days")
        table.replace(table.schema.arrow.empty_table(), None)
    panel = Panel(settings, lambda: NOW)
    asked.clear()
    found = usage(panel.view, ZoneInfo("UTC"), ACME, period_of(TODAY, None, TODAY - 39 * DAY, TODAY), NOW)
    counted = list(zip(*found.counts.values(), strict=True))
    wanted = []
    for day in days_between(TODAY - 39 * DAY, TODAY):
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        wanted.append(business.counted(start, start + DAY, ACME).total())
    assert len(found.uncounted) == 40 - 2 - 31
    assert [sum(map(int, of_day)) for of_day in counted] == [0] * 7 + wanted[7:]
    assert Counter(question.name for question in asked)["customer_counts"] == 31
    with TestClient(build_app(settings, clock=lambda: NOW)) as client:
        page = client.get(f"{PAGE}?de={TODAY - 39 * DAY}&ate={TODAY}", headers=_of(settings, ACME)).text
    assert "7 dias em aberto há mais de um mês não estão incluídos." in page


# --- what an address may ask for --------------------------------------------------------------------------------------

days = st.dates(date(2014, 1, 1), date(2027, 1, 1))


@given(first=days, last=days)
def test_a_period_is_of_366_days_at_most_and_never_to_come(first: date, last: date) -> None:
    number = (last - first).days + 1
    if date(2015, 1, 1) <= first <= last <= TODAY and number <= 366:
        step = period_of(TODAY, None, first, last).step
        assert step == ("hour" if number == 1 else "day" if number <= 92 else "month")
    else:
        with pytest.raises(Refused) as refused:
            period_of(TODAY, None, first, last)
        assert refused.value.status == 400


def _of(settings: Settings, customer: int | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {Keys.of(settings).mint(customer, timedelta(hours=1))}"}


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    """Of the pages."""
    with TestClient(build_app(settings, clock=lambda: NOW)) as client:
        yield client


@pytest.mark.parametrize("whose", [PAGE, f"{PAGE}/agora", "/operador"])
@pytest.mark.parametrize(
    "query",
    [
        "periodo=ano",
        "periodo=",
        "periodo=mes&de=2026-01-01&ate=2026-01-02",
        "de=2026-01-01",
        "ate=2026-01-01",
        "de=2026-03-02&ate=2026-03-01",
        "de=2025-03-09&ate=2026-03-10",
        "de=2026-03-10&ate=2026-03-11",
        "de=0001-01-01&ate=0001-01-02",
        "de=1900-01-01&ate=1900-01-02",
        "de=x&ate=2026-01-01",
        "de=&ate=",
        "de=9999-12-31&ate=9999-12-31",
        "mes=2026-13",
        "mes=2026-04",
        "mes=2014-12",
        "mes=0000-01",
        "mes=x",
        "mes=%00",
    ],
)
def test_what_no_page_can_show_is_a_clear_answer(
    client: TestClient, settings: Settings, whose: str, query: str
) -> None:
    answer = client.get(f"{whose}?{query}", headers=_of(settings, None))
    assert answer.status_code in (400, 422)
    assert "O pedido não pode ser atendido" in answer.text
    assert "366 dias" in answer.text


texts = st.text(max_size=12) | st.sampled_from(["", "dia", "hora", "2026-03-01", "2026-03", "0", "-1", "1e9", "NaN"])


@given(asked=st.dictionaries(st.sampled_from(["periodo", "de", "ate", "mes"]), texts))
def test_whatever_is_asked_is_shown_or_refused(client: TestClient, settings: Settings, asked: dict[str, str]) -> None:
    clean = {name: value.encode(errors="replace").decode() for name, value in asked.items()}
    answer = client.get(PAGE, params=clean, headers=_of(settings, ACME))
    assert answer.status_code in (200, 400, 422)


# --- pages ------------------------------------------------------------------------------------------------------------


def _get(client: TestClient, settings: Settings, query: str = "", customer: int | None = ACME) -> httpx.Response:
    answer: httpx.Response = client.get((PAGE if customer else "/operador") + query, headers=_of(settings, customer))
    assert answer.status_code == 200
    return answer


def _months(page: str) -> dict[str, tuple[str, str, str]]:
    """Of the table of months: status, notifications and amount of each."""
    table = page.partition('id="meses"')[2].partition("</table>")[0]
    row = re.compile(
        r'<th scope="row">(?:<a [^>]*>)?([^<]+)(?:</a>)?</th><td>(\w+)</td>'
        r'<td class="n"[^>]*>([^<]*)</td><td class="n"[^>]*>([^<]*)</td>'
    )
    return {name: (status, number, money) for name, status, number, money in row.findall(table)}


@pytest.mark.parametrize("customer", [ACME, None])
def test_bills_by_month_are_the_sums_of_the_books(
    client: TestClient, settings: Settings, business: Business, customer: int | None
) -> None:
    def sums(month: date) -> tuple[int, Decimal]:
        billed: Counter[tuple[date, int, str]] = Counter()
        for key, number in (*business.lines.items(), *business.adjustments.items()):
            billed[key] += number
        if customer:
            for day in (TODAY - DAY, TODAY):
                billed.update({(day, ACME, name): n for name, n in of_day(business, day, ACME).items()})
        of_month = {
            key: n for key, n in billed.items() if key[0].replace(day=1) == month and customer in (None, key[1])
        }
        return sum(of_month.values()), sum((amount(key[2], n) for key, n in of_month.items()), Decimal(0))

    wanted = {}
    for name, month, status in (
        ("março de 2026", date(2026, 3, 1), "provisória"),
        ("fevereiro de 2026", date(2026, 2, 1), "final"),
        ("janeiro de 2026", date(2026, 1, 1), "final"),
        ("dezembro de 2025", date(2025, 12, 1), "final"),
    ):
        number, money = sums(month)
        wanted[name] = (status, f"{number:,}".replace(",", "."), f"R$ {money:,.2f}".translate({44: ".", 46: ","}))
    assert _months(_get(client, settings, customer=customer).text) == wanted


def test_a_month_is_what_its_statement_says(client: TestClient, settings: Settings) -> None:
    months = _months(_get(client, settings).text)
    for name, month in (("março de 2026", "2026-03"), ("fevereiro de 2026", "2026-02"), ("janeiro de 2026", "2026-01")):
        paper = client.get(f"{PAGE}/extrato?mes={month}&formato=text", headers=_of(settings, ACME)).text
        status, _, money = months[name]
        assert f"Total: {money.replace('.', '')}\n" in paper
        assert f"Situação: {status}\n" in paper


def test_the_days_of_a_chosen_month_are_listed(client: TestClient, settings: Settings, business: Business) -> None:
    page = _get(client, settings, "?mes=2026-01&periodo=semana").text
    listed = re.findall(r'<tr><th scope="row">(2026-\d\d-\d\d)</th><td>final</td>', page)
    assert Counter(listed) == {str(day): 5 for day in days_between(date(2026, 1, 1), date(2026, 1, 31))}
    assert page.count('class="adjustment"') == sum(day.month == 1 for day, *_ in business.adjustments)
    assert 'href="/clientes/7494212?mes=2026-01&amp;periodo=hora#uso-titulo"' in page  # a choice keeps the other
    assert f'data-address="{PAGE}/agora?periodo=semana&amp;mes=2026-01"' in page


@pytest.mark.parametrize("query", ["", "?periodo=hora&mes=2026-01", "?de=2025-12-09&ate=2026-03-10&mes=2026-01"])
@pytest.mark.parametrize("customer", [ACME, None])
def test_a_page_is_of_at_most_150_kilobytes(
    client: TestClient, settings: Settings, query: str, customer: int | None
) -> None:
    """Five channels, 92 days, and a month of bills."""
    assert len(_get(client, settings, query, customer).content) <= 150_000
