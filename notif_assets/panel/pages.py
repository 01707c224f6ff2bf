"""The pages: a customer's, the operator's, and the door that takes a token once.

Belongs here: what a page is made of. Doesn't: numbers (queries.py, api.py), who may see them (access.py), words in
other languages (texts.py).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode
from zoneinfo import ZoneInfo

import anyio
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import ClientDisconnect

from notif_assets.core.days import FIRST_DAY, day_start
from notif_assets.core.formats import Format, StatementFormat
from notif_assets.notifications import queries
from notif_assets.panel import bills
from notif_assets.panel.access import (
    AnyViewer,
    OfCustomer,
    OfPanel,
    Operator,
    Refused,
    cookie_of,
    count_export,
    is_cross_site,
    require_same_site,
    viewer_of_token,
)
from notif_assets.panel.api import (
    CUSTOMERS_A_PAGE,
    bills_file,
    conditional_response,
    download,
    etag,
    statement_of,
)
from notif_assets.panel.charts import chart
from notif_assets.panel.dagster_state import State
from notif_assets.panel.months import BOOKS
from notif_assets.panel.snapshot import Customer, Panel, Sort, View
from notif_assets.panel.texts import COOKIE as LANGUAGE_COOKIE
from notif_assets.panel.texts import (
    Language,
    ago,
    amount,
    amounts,
    change,
    clock,
    label,
    language_of,
    named,
    number,
    price,
    short_number,
    translations,
)
from notif_assets.panel.usage import PERIOD, Period, PeriodName, Usage, between, period_of, usage
from notif_assets.reports.text import visible

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
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
    environment.filters |= {"visible": visible, "iso": _iso}
    words = (amount, amounts, change, named, number, price, short_number)
    environment.filters |= {word.__name__: partial(word, language=language) for word in words}
    environment.globals |= {"language": language}
    return environment


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page in the reader's language."""
    values |= {"viewer": getattr(request.state, "viewer", None), "here": _here(request)}
    page = _templates(language_of(request)).get_template(template).render(**values)
    return HTMLResponse(page, status, {"Vary": "Cookie, Accept-Language"})


def _here(request: Request) -> str:
    """The page's address. What the door is asked holds a token, and stays out."""
    path, query = request.scope["path"], request.url.query
    return f"{path}?{query}" if query and path.startswith(("/clientes/", "/operador")) else path


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat()


# --- coming and going -------------------------------------------------------------------------------------------------


@router.get("/entrar")
def enter(request: Request, t: str = "") -> Response:
    """Takes a token once: from here on it is in a cookie, and in no address.

    A link on a page of another site asks first: it could be somebody else's, to have you enter as them.
    """
    viewer = viewer_of_token(request, t)
    return render(request, "enter.html", token=t, whom=viewer) if is_cross_site(request) else _entered(request, t)


@router.post("/entrar", dependencies=[Depends(require_same_site)])
async def enter_here(request: Request) -> Response:
    """As the link does, when the page that asked first is answered."""
    form = await _form(request)
    return _entered(request, form.get("t", [""])[0])


def _entered(request: Request, token: str) -> Response:
    left = max(1, int((viewer_of_token(request, token).expires - datetime.now(UTC)).total_seconds()))
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


@router.post("/sair", dependencies=[Depends(require_same_site)])
def leave(request: Request) -> Response:
    """Forgets the token, and what the browser kept of the pages."""
    response = RedirectResponse("/", 303, {"Clear-Site-Data": '"cache"'})
    response.delete_cookie(cookie_of(request), **_cookie(request))
    return response


@router.get("/idioma/{language}")
def switch_language(language: Language, volta: str = "/") -> Response:
    """Keeps the language that somebody chose, and goes back to the page."""
    is_own_path = volta.startswith("/") and not volta.startswith(("//", "/\\"))
    response = RedirectResponse(volta if is_own_path else "/", 303)
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
class Shown:
    """What a page's address asks it to show: a period, and a month's bills day by day (None: the latest)."""

    period: Period
    month: date | None

    @property
    def query(self) -> dict[str, str]:
        """The parameters that ask for it."""
        return self.period.query | ({"mes": f"{self.month:%Y-%m}"} if self.month else {})


def _address(path: str, parameters: dict[str, str], **changes: object) -> str:
    """The address of a page that shows what is asked, but for `changes`; None leaves a parameter out."""
    if changes.keys() & PERIOD:
        parameters = {name: value for name, value in parameters.items() if name not in PERIOD}
    query = {name: value for name, value in (parameters | changes).items() if value not in (None, "")}
    return f"{path}?{urlencode(query)}" if query else path


def shown(
    panel: OfPanel,
    periodo: PeriodName | None = None,
    de: date | None = None,
    ate: date | None = None,
    mes: Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}$")] = None,
) -> Shown:
    """What the parameters say. Raises Refused."""
    return Shown(period_of(panel.today, periodo, de, ate), _month(mes, panel.today) if mes else None)


AsAsked = Annotated[Shown, Depends(shown)]


def _month(text: str, today: date) -> date:
    try:
        month = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise Refused(400, "no such month") from None
    if not FIRST_DAY <= month <= today:
        raise Refused(400, "a month that has begun is needed")
    return month


@router.get("/clientes/{customer_id}")
def customer_page(request: Request, panel: OfPanel, customer: OfCustomer, shown: AsAsked) -> Response:
    """The customer's page, whole."""
    view = panel.view
    values = _customer(request, panel, customer, view, shown)
    months = sorted({view.overview.day.replace(day=1), *view.months.closed}, reverse=True)
    return render(request, "customer.html", **values, today=view.overview.day, statements=months)


@router.get("/clientes/{customer_id}/agora")
def customer_now(request: Request, panel: OfPanel, customer: OfCustomer, shown: AsAsked) -> Response:
    """The parts of the page that change by themselves; 304 while nothing changed."""
    view, now = panel.view, panel.clock()
    overview = view.overview
    tag = etag(
        customer,
        shown,
        overview.version,
        overview.is_late(now),
        view.hours.table.version,
        [view.lake.table(name).version for name in (*BOOKS, "prices")],
        f"{now:%Y-%m-%dT%H:%M}",
        language_of(request),
    )
    return conditional_response(
        request,
        tag,
        lambda: bytes(render(request, "_now.html", **_customer(request, panel, customer, view, shown)).body),
        "text/html; charset=utf-8",
    )


def _customer(request: Request, panel: Panel, customer: Customer, view: View, shown: Shown) -> dict[str, Any]:
    now, zone, language = panel.clock(), panel.settings.zone, language_of(request)
    customer = view.overview.customers.get(customer.customer_id, customer)  # it was looked up before the view was taken
    bills_future = panel.side_executor.submit(_bills, panel, customer, view, shown)
    sent = usage(view, zone, customer.customer_id, shown.period, now)
    channels = _compared(customer, _yesterday(view, customer, zone, now))
    return {
        "customer": customer,
        "whatsapp": next((one.notifications for one in customer.channels if one.name == "Whatsapp"), 0),
        "channels": channels,
        "sent_today": sum(one.today for one in channels),
        "sent_yesterday": sum(one.yesterday for one in channels),
        **_freshness(view, zone, now, language),
        **_drawn(sent, shown, zone, now, language),
        "address": partial(_address, f"/clientes/{customer.customer_id}", shown.query),
        "query": shown.query,
        **bills_future.result(),
        "zone": str(zone),
    }


def _freshness(view: View, zone: ZoneInfo, now: datetime, language: Language) -> dict[str, Any]:
    overview = view.overview
    until = min(overview.updated_at or now, now)
    return {
        "overview": overview,
        "late": overview.is_late(now),
        "until": clock(until, zone, now),
        "ago": ago(now - until, language),
    }


def _drawn(sent: Usage, shown: Shown, zone: ZoneInfo, now: datetime, language: Language) -> dict[str, Any]:
    """What a template needs to draw a usage."""
    labels = [label(start, sent.period.step, zone, language) for start in sent.starts]
    before = None if sent.before is None else sent.before.tolist()
    counts = {name: values.tolist() for name, values in sent.counts.items()}
    return {"chart": chart(labels, counts, before), "usage": sent, "average": sent.average(now), "shown": shown}


def _yesterday(view: View, customer: Customer, zone: ZoneInfo, now: datetime) -> dict[str, int]:
    """Yesterday's messages up to the time of day that today is counted to, in whole minutes."""
    until = min(view.overview.updated_at or now, now)
    start, before = (day_start(day, zone) for day in (view.overview.day, view.overview.day - _DAY))
    passed = max(until - start, timedelta(0)) // _MINUTE * _MINUTE
    return between(view.hours, customer.customer_id, before, before + passed)


def _compared(customer: Customer, yesterday: dict[str, int]) -> list[Today]:
    names = dict.fromkeys(["Whatsapp", *(one.name for one in customer.channels), *yesterday])
    counts = {one.name: one.notifications for one in customer.channels}
    return [Today(name, counts.get(name, 0), yesterday.get(name, 0)) for name in names]


def _bills(panel: Panel, customer: Customer, view: View, shown: Shown) -> dict[str, Any]:
    latest = bills.latest(panel, customer, view)
    months = bills.by_month(view, customer, latest.days)
    listed = bills.of_month(panel, customer, view, shown.month).days if shown.month else latest.days[: bills.LISTED]
    this_month = next(one for one in months if one.month == view.overview.day.replace(day=1))
    return {"bills": listed, "unpriced": latest.unpriced, "months": months, "month": this_month}


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
    count_export(request)
    zone = panel.settings.zone
    return download(request, panel, customer, day_start(de, zone), day_start(ate + _DAY, zone), canal or None, formato)


@router.get("/clientes/{customer_id}/extrato")
def statement(
    request: Request, panel: OfPanel, customer: OfCustomer, mes: str = "", formato: StatementFormat = "pdf"
) -> Response:
    """The statement of a month, for the form of the page."""
    count_export(request)
    return statement_of(panel, customer, mes, formato)


@router.get("/clientes/{customer_id}/cobrancas")
def bills_of_days(
    request: Request, panel: OfPanel, customer: OfCustomer, de: date, ate: date, formato: Format = "csv"
) -> Response:
    """The bills of some days, for the form of the page."""
    count_export(request)
    return bills_file(panel, customer, de, ate, formato)


# --- the operator's page ----------------------------------------------------------------------------------------------


@router.get("/operador")
def operator_page(
    request: Request,
    panel: OfPanel,
    _viewer: Operator,
    shown: AsAsked,
    q: Annotated[str, Query(max_length=200)] = "",
    ordem: Sort = "notifications",
    pagina: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """All customers, and how the system is."""
    view, now, zone, language = panel.view, panel.clock(), panel.settings.zone, language_of(request)
    found = view.overview.customers.search(q, ordem)
    pages = max(1, -(-len(found) // CUSTOMERS_A_PAGE))
    page = min(pagina, pages)
    parameters = shown.period.query | {"q": q, "ordem": ordem, "pagina": str(page)}
    rows = found[(page - 1) * CUSTOMERS_A_PAGE : page * CUSTOMERS_A_PAGE]
    batch = queries.newest_batch(panel.lake)
    return render(
        request,
        "operator.html",
        found=found,
        listed=[view.overview.customers[one] for one in rows],
        page=page,
        pages=pages,
        q=q,
        order=ordem,
        address=partial(_address, "/operador", parameters),
        totals=view.overview.customers.per_channel(),
        months=view.months.of(None),
        final=view.months.final,
        batch=batch,
        batch_read=clock(batch.planned_at, zone, now) if batch else "",
        rejected=view.rejected.by_reason if view.rejected else None,
        **_drawn(usage(view, zone, None, shown.period, now), shown, zone, now, language),
        **_freshness(view, zone, now, language),
        **_of_dagster(request, panel, panel.dagster.recent()),
    )


@router.get("/operador/dagster")
def dagster_part(request: Request, panel: OfPanel, _viewer: Operator) -> Response:
    """What the operator's page says of Dagster, for the script that fetches it where the page could not say it yet."""
    return render(request, "_dagster.html", **_of_dagster(request, panel, panel.dagster()))


def _of_dagster(request: Request, panel: Panel, state: State | None) -> dict[str, Any]:
    read = ago(datetime.now(UTC) - state.read_at, language_of(request)) if state else ""
    return {"dagster": state, "dagster_read": read, "dagster_url": panel.settings.dagster_url}
