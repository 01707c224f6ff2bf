"""The pages: a customer's, the operator's, and the door that takes a token once.

Belongs here: what a page is made of. Doesn't: numbers (queries.py, api.py), who may see them (access.py), words in
other languages (texts.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode
from zoneinfo import ZoneInfo

import anyio
import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import ClientDisconnect

from notif_assets.billing import statements
from notif_assets.billing.closed_days import closed_days
from notif_assets.billing.lines import BillRefused
from notif_assets.core.amounts import by_currency
from notif_assets.core.days import day_start, hours_of
from notif_assets.core.formats import Format, StatementFormat
from notif_assets.notifications import queries
from notif_assets.panel.access import (
    AnyViewer,
    OfCustomer,
    OfPanel,
    Operator,
    Refused,
    cookie_of,
    from_here,
    is_from_elsewhere,
    take_export,
    who,
)
from notif_assets.panel.api import (
    CUSTOMERS_A_PAGE,
    Adjustment,
    Line,
    bills_file,
    bills_of,
    download,
    etag,
    statement_of,
    unless_known,
)
from notif_assets.panel.charts import Chart, chart
from notif_assets.panel.dagster_state import State
from notif_assets.panel.hours import Hours
from notif_assets.panel.snapshot import CHART_HOURS, Customer, Panel, Sort, View
from notif_assets.panel.texts import COOKIE as LANGUAGE_COOKIE
from notif_assets.panel.texts import Language, ago, clock, language_of, translations
from notif_assets.reports.text import amounts, money, unit_price, visible

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_BILLS = 31
_YEAR_SECONDS = 365 * 86_400
_FORM_BYTES, _FORM_SECONDS = 32 * 2**10, 10.0

router = APIRouter(include_in_schema=False)


@cache
def _templates(language: Language) -> Environment:
    environment = Environment(
        loader=PackageLoader("notif_assets.panel"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]
    environment.filters |= {"visible": visible, "iso": _iso, "money": money, "amounts": amounts, "price": unit_price}
    environment.globals |= {"language": language}
    return environment


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page in the reader's language."""
    values |= {"viewer": getattr(request.state, "viewer", None), "here": request.scope["path"]}
    page = _templates(language_of(request)).get_template(template).render(**values)
    return HTMLResponse(page, status, {"Vary": "Cookie, Accept-Language"})


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat()


# --- coming and going -------------------------------------------------------------------------------------------------


@router.get("/entrar")
def enter(request: Request, t: str = "") -> Response:
    """Takes a token once: from here on it is in a cookie, and in no address.

    A link on a page of another site asks first: it could be somebody else's, to have you enter as them.
    """
    viewer = who(request, t)
    return render(request, "enter.html", token=t, whom=viewer) if is_from_elsewhere(request) else _entered(request, t)


@router.post("/entrar", dependencies=[Depends(from_here)])
async def enter_here(request: Request) -> Response:
    """As the link does, when the page that asked first is answered."""
    form = await _form(request)
    return _entered(request, form.get("t", [""])[0])


def _entered(request: Request, token: str) -> Response:
    left = max(1, int((who(request, token).expires - datetime.now(UTC)).total_seconds()))
    response = RedirectResponse("/", 303)
    response.set_cookie(cookie_of(request), token, max_age=left, **_cookie(request))
    return response


def _cookie(request: Request) -> dict[str, Any]:
    return {"httponly": True, "samesite": "lax", "secure": request.scope["scheme"] == "https"}


async def _form(request: Request) -> dict[str, list[str]]:
    """The fields of a form. Raises Refused: 413 for more than a token takes, 408 for one that does not end, 400."""
    body = bytearray()
    try:
        with anyio.fail_after(_FORM_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > _FORM_BYTES:
                    raise Refused(413, "too long")
    except TimeoutError:
        raise Refused(408, "too slow") from None
    except ClientDisconnect:
        raise Refused(400, "not whole") from None
    return parse_qs(body.decode(errors="replace"))


@router.post("/sair", dependencies=[Depends(from_here)])
def leave(request: Request) -> Response:
    """Forgets the token, and what the browser kept of the pages."""
    response = RedirectResponse("/", 303, {"Clear-Site-Data": '"cache"'})
    response.delete_cookie(cookie_of(request), **_cookie(request))
    return response


@router.get("/idioma/{language}")
def switch_language(language: Language, volta: str = "/") -> Response:
    """Keeps the language that somebody chose, and goes back to the page."""
    ours = volta.startswith("/") and not volta.startswith(("//", "/\\"))
    response = RedirectResponse(volta if ours else "/", 303)
    response.set_cookie(LANGUAGE_COOKIE, language, max_age=_YEAR_SECONDS, samesite="lax", httponly=True)
    return response


@router.get("/")
def home(viewer: AnyViewer) -> Response:
    """Everybody's own page."""
    return RedirectResponse("/operador" if viewer.is_operator else f"/clientes/{viewer.customer_id}", 303)


# --- a customer's page ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Today:
    """A channel today, and yesterday up to the same time."""

    channel: str
    today: int
    yesterday: int


@dataclass(frozen=True)
class DayBill:
    """A day's bill: its lines and its adjustments."""

    day: date
    status: str
    lines: list[Line]
    adjustments: list[Adjustment]

    @property
    def notifications(self) -> int:
        """Of all lines."""
        return sum(line.notifications for line in self.lines)

    @property
    def amounts(self) -> list[tuple[str, Decimal]]:
        """Of all lines and adjustments, each with its currency."""
        lines = [(line.currency, line.amount) for line in self.lines]
        return lines + [(one.currency, one.amount_delta) for one in self.adjustments]


@router.get("/clientes/{customer_id}")
def customer_page(request: Request, panel: OfPanel, customer: OfCustomer) -> Response:
    """The customer's page, whole."""
    view = panel.view
    shown = _customer(request, panel, customer, view)
    return render(request, "customer.html", **shown, today=view.overview.day, months=_months(panel))


@router.get("/clientes/{customer_id}/agora")
def customer_now(request: Request, panel: OfPanel, customer: OfCustomer) -> Response:
    """The part of the page that changes by itself; 304 while nothing changed."""
    view, now = panel.view, panel.clock()
    overview = view.overview
    tag = etag(
        customer,
        overview.version,
        overview.is_late(now),
        view.hours.table.version,
        [panel.lake.table(name).version for name in ("daily_billing", "billing_adjustments")],
        f"{now:%Y-%m-%dT%H:%M}",
        language_of(request),
    )
    return unless_known(
        request,
        tag,
        lambda: bytes(render(request, "_now.html", **_customer(request, panel, customer, view)).body),
        "text/html; charset=utf-8",
    )


def _customer(request: Request, panel: Panel, customer: Customer, view: View) -> dict[str, Any]:
    overview, hours, now, zone = view.overview, view.hours, panel.clock(), panel.settings.zone
    customer = overview.customers.get(customer.customer_id, customer)  # it was looked up before the view was taken
    asked_beside = panel.beside.submit(_bills, panel, customer, view)
    minute = now.replace(second=0, microsecond=0)
    hour = minute.replace(minute=0)
    until = min(overview.updated_at or now, now)
    start, before = day_start(overview.day, zone), day_start(overview.day - _DAY, zone)
    yesterday = before, before + max(until - start, timedelta(0))
    series = _series(hours, customer, now, by_minute_at=(minute - 59 * _MINUTE, now, *yesterday))
    bills, unpriced = asked_beside.result()
    month = [bill for bill in bills if (bill.day.year, bill.day.month) == (overview.day.year, overview.day.month)]
    language = language_of(request)
    return {
        "customer": customer,
        "whatsapp": next((one.notifications for one in customer.channels if one.name == "Whatsapp"), 0),
        "overview": overview,
        "late": overview.is_late(now),
        "until": clock(until, zone, now),
        "ago": ago(now - until, language),
        "channels": _compared(customer, series.count(*yesterday)),
        "minutes": series.chart(minute - 59 * _MINUTE, _MINUTE, 60, zone),
        "hours": series.chart(hour - (CHART_HOURS - 1) * _HOUR, _HOUR, CHART_HOURS, zone),
        "bills": bills[:_BILLS],
        "unpriced": unpriced,
        "month": month,
        "month_totals": by_currency(amount for bill in month for amount in bill.amounts),
        "month_notifications": sum(bill.notifications for bill in month),
        "zone": str(zone),
    }


def _series(hours: Hours, customer: Customer, now: datetime, by_minute_at: Iterable[datetime]) -> "_Series":
    """The customer's counts: by minute in the hours of these moments, by hour in all others that are kept."""
    fine = {(moment.date(), moment.hour) for moment in by_minute_at}
    coarse = hours_of(hours.since, now) - fine
    minutes = hours.minutes(customer.customer_id, fine, now)
    sums = hours.sums(customer.customer_id, coarse).select(minutes.schema.names)
    return _Series(pa.concat_tables([sums, minutes]), hours.since)


class _Series:
    """A customer's minutes since a moment."""

    def __init__(self, rows: pa.Table, since: datetime) -> None:
        self._since = since
        moments = rows["minute"].cast(pa.int64()).to_numpy() // 60_000_000
        self._at = moments - int(since.timestamp()) // 60
        self._channels = np.array(rows["channel"].to_pylist(), dtype=object)
        self._counts = rows["notifications"].to_numpy()

    def _minutes(self, moment: datetime) -> int:
        return int((moment - self._since).total_seconds() // 60)

    def count(self, start: datetime, end: datetime) -> dict[str, int]:
        """Messages per channel in [start, end), whole minutes."""
        inside = (self._at >= self._minutes(start)) & (self._at < self._minutes(end))
        names = self._channels[inside]
        return {name: int(self._counts[inside][names == name].sum()) for name in dict.fromkeys(names)}

    def chart(self, start: datetime, step: timedelta, number: int, zone: ZoneInfo) -> Chart:
        """All channels' messages, a bar for each step."""
        wide = step // _MINUTE
        place = (self._at - self._minutes(start)) // wide
        inside = (place >= 0) & (place < number)
        sums = np.bincount(place[inside].astype(np.int64), self._counts[inside], number)
        return _bars(start, step, [int(count) for count in sums], zone)


def _bars(start: datetime, step: timedelta, counts: list[int], zone: ZoneInfo) -> Chart:
    """A bar for each step from `start` on, labelled with its beginning in the zone."""
    form = "%H:%M" if step == _MINUTE else "%d/%m %H:%M"
    moments = ((start + at * step).astimezone(zone) for at in range(len(counts)))
    return chart([(f"{moment:{form}}", count) for moment, count in zip(moments, counts, strict=True)])


def _compared(customer: Customer, yesterday: dict[str, int]) -> list[Today]:
    names = dict.fromkeys(["Whatsapp", *(one.name for one in customer.channels), *yesterday])
    counts = {one.name: one.notifications for one in customer.channels}
    return [Today(name, counts.get(name, 0), yesterday.get(name, 0)) for name in names]


def _bills(panel: Panel, customer: Customer, view: View) -> tuple[list[DayBill], bool]:
    """The bills of late, newest first, and whether open days are missing for want of a price.

    An open day without messages has none yet, but for today.
    """
    lake, today = view.lake, view.overview.day
    days = statements.billed_days(lake, today, _BILLS)
    at_hand = None
    if customer.customer_id in view.overview.customers:
        at_hand = statements.AtHand(customer.name, partial(view.hours.lines, panel.settings, customer.customer_id))
    try:
        answer, unpriced = bills_of(panel, customer, days, at_hand, lake), False
    except BillRefused:
        closed = closed_days(lake)
        answer, unpriced = bills_of(panel, customer, [day for day in days if day in closed], at_hand, lake), True
    adjustments: dict[date, list[Adjustment]] = {}
    for one in answer.adjustments:
        adjustments.setdefault(one.date, []).append(one)
    bills = []
    for day, group in groupby(answer.lines, attrgetter("date")):
        lines = list(group)
        bill = DayBill(day, lines[0].status, lines, adjustments.get(day, []))
        if bill.notifications or bill.adjustments or bill.status == "final" or day == today:
            bills.append(bill)
    return bills[::-1], unpriced


@router.get("/clientes/{customer_id}/relatorio")
def report(
    request: Request,
    panel: OfPanel,
    customer: OfCustomer,
    de: date,
    ate: date,
    canal: Annotated[str, Query(max_length=4096)] = "",
    formato: Format = "csv",
) -> Response:
    """The detailed report of some days of NOTIF_TIMEZONE, for the form of the page."""
    if not date(1970, 1, 2) <= de <= ate <= date(9998, 12, 30):
        raise Refused(400, "the first day must not come after the last")
    take_export(request)
    zone = panel.settings.zone
    return download(request, panel, customer, day_start(de, zone), day_start(ate + _DAY, zone), canal or None, formato)


@router.get("/clientes/{customer_id}/extrato")
def statement(
    request: Request, panel: OfPanel, customer: OfCustomer, mes: str = "", formato: StatementFormat = "pdf"
) -> Response:
    """The statement of a month, for the form of the page."""
    take_export(request)
    return statement_of(panel, customer, mes, formato)


@router.get("/clientes/{customer_id}/cobrancas")
def bills(
    request: Request, panel: OfPanel, customer: OfCustomer, de: date, ate: date, formato: Format = "csv"
) -> Response:
    """The bills of some days, for the form of the page."""
    take_export(request)
    return bills_file(panel, customer, de, ate, formato)


def _months(panel: Panel) -> list[str]:
    """The months that have a statement, newest first: this one, and those of closed days."""
    return sorted({f"{day:%Y-%m}" for day in (panel.today, *closed_days(panel.lake))}, reverse=True)


# --- the operator's page ----------------------------------------------------------------------------------------------


@router.get("/operador")
def operator_page(
    request: Request,
    panel: OfPanel,
    _viewer: Operator,
    q: Annotated[str, Query(max_length=200)] = "",
    ordem: Sort = "notifications",
    pagina: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """All customers, and how the system is."""
    view, now = panel.view, panel.clock()
    overview = view.overview
    dagster = panel.dagster.recent()
    found = overview.customers.search(q, ordem)
    pages = max(1, -(-len(found) // CUSTOMERS_A_PAGE))
    page = min(pagina, pages)

    def address(**changes: object) -> str:
        return "/operador?" + urlencode({"q": q, "ordem": ordem, "pagina": page} | changes)

    since = now.replace(minute=0, second=0, microsecond=0) - (CHART_HOURS - 1) * _HOUR
    hourly = view.hours.totals()
    rejected = view.rejected
    batch = queries.newest_batch(panel.lake)
    return render(
        request,
        "operator.html",
        overview=overview,
        found=found,
        shown=[overview.customers[one] for one in found[(page - 1) * CUSTOMERS_A_PAGE : page * CUSTOMERS_A_PAGE]],
        page=page,
        pages=pages,
        q=q,
        order=ordem,
        address=address,
        totals=overview.customers.per_channel(),
        hours=_bars(
            since, _HOUR, [hourly.get(since + at * _HOUR, 0) for at in range(CHART_HOURS)], panel.settings.zone
        ),
        batch=batch,
        batch_read=clock(batch.planned_at, panel.settings.zone, now) if batch else "",
        rejected=rejected.by_reason if rejected else None,
        **_of_dagster(request, panel, dagster),
        late=overview.is_late(now),
        until=clock(overview.updated_at, panel.settings.zone, now) if overview.updated_at else "",
        ago=ago(now - (overview.updated_at or now), language_of(request)),
    )


@router.get("/operador/dagster")
def dagster_part(request: Request, panel: OfPanel, _viewer: Operator) -> Response:
    """What the operator's page says of Dagster, for the script that fetches it where the page could not say it yet."""
    return render(request, "_dagster.html", **_of_dagster(request, panel, panel.dagster()))


def _of_dagster(request: Request, panel: Panel, state: State | None) -> dict[str, Any]:
    read = ago(datetime.now(UTC) - state.read_at, language_of(request)) if state else ""
    return {"dagster": state, "dagster_read": read, "dagster_url": panel.settings.dagster_url}
