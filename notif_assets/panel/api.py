"""/api/v1: the numbers of the pages for programs.

Belongs here: the shape of requests and answers. Doesn't: which rows (queries.py), who may ask (access.py).
Moments are ISO 8601 in UTC; money and prices are decimal strings.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from notif_assets.billing import statements
from notif_assets.core.amounts import sum_by_currency
from notif_assets.core.days import days_between
from notif_assets.core.formats import Format, StatementFormat
from notif_assets.lake import Lake
from notif_assets.notifications import queries
from notif_assets.panel.access import OfCustomer, OfPanel, Operator, Refused, count_export
from notif_assets.panel.export import Download, name_of, rows_at_once
from notif_assets.panel.snapshot import Customer, Overview, Panel, Sort
from notif_assets.reports import write_billing, write_detailed, write_statement

CUSTOMERS_A_PAGE = 50
_MOST_DAYS = 92
_MOST_MINUTES = timedelta(days=2)
_PER_PAGE = 500
_LONGEST_CURSOR = 2 * 2**14  # of a message id of quotes alone, each of which JSON escapes
_EARLIEST, _LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)


class Problem(BaseModel):
    """RFC 9457."""

    title: str
    status: int
    detail: str


class ChannelCount(BaseModel):
    """A customer's messages of one channel on the day."""

    channel: str
    notifications: int
    last_event: datetime | None


class PanelAnswer(BaseModel):
    """A customer's panel: all messages up to `updated_at` are counted in it."""

    customer_id: int
    customer_name: str
    date: date
    notifications: int = Field(description="Of all channels.")
    channels: list[ChannelCount]
    updated_at: datetime | None
    table_version: int = Field(description="The version of customer_panel that the numbers are from.")


class CustomersAnswer(BaseModel):
    """A page of the customers."""

    customers: list[PanelAnswer]
    total: int
    page: int


class MinuteCount(BaseModel):
    """The messages of one channel in the minute that begins then."""

    minute: datetime
    channel: str
    notifications: int


class MinutesAnswer(BaseModel):
    """Minutes without messages are not listed."""

    minutes: list[MinuteCount]


class Line(BaseModel):
    """A line of a bill."""

    date: date
    channel: str | None
    notifications: int
    unit_price: Decimal | None
    amount: Decimal
    currency: str
    status: Literal["provisional", "final"]


class Adjustment(BaseModel):
    """A correction of a closed day."""

    date: date
    channel: str
    notifications_delta: int
    amount_delta: Decimal
    currency: str
    reason: str
    created_at: datetime


class BillsAnswer(BaseModel):
    """Lines and adjustments; together they are what is billed."""

    lines: list[Line]
    adjustments: list[Adjustment]
    totals: dict[str, Decimal] = Field(description="Of lines and adjustments, in each currency.")
    total: Decimal | None = Field(description="The same if all is in one currency; null if not.")


class MessageItem(BaseModel):
    """One notification."""

    message_id: str
    channel: str
    payload: str
    event_datetime: datetime


class MessagesAnswer(BaseModel):
    """A page of messages in order; `next` continues it, null at the end."""

    messages: list[MessageItem]
    next: str | None


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    meaning = {400: "A wrong parameter", 401: "No valid token", 403: "Not for you", 404: "Not found", 409: "Not yet"}
    meaning |= {422: "A wrong parameter", 429: "Too many exports", 503: "The lake can't be read now"}
    return {status: {"description": meaning[status], "content": content} for status in statuses}


router = APIRouter(prefix="/api/v1", responses=_problems(400, 401, 404, 422, 503))

Start = Annotated[AwareDatetime | None, Query(alias="from", description="First moment, with an offset.")]
End = Annotated[AwareDatetime | None, Query(alias="to", description="The moment after the last, with an offset.")]
OfChannel = Annotated[str | None, Query(max_length=4096, description="Only this channel, whatever its case.")]


@router.get("/customers", responses=_problems(403))
def customers(
    panel: OfPanel,
    _viewer: Operator,
    q: Annotated[str, Query(max_length=200, description="Part of a name, or an id.")] = "",
    sort: Sort = "notifications",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> CustomersAnswer:
    """All customers, for operators: those that match `q`, 50 a page."""
    overview = panel.overview
    found = overview.customers.search(q, sort)
    shown = [overview.customers[one] for one in found[(page - 1) * CUSTOMERS_A_PAGE : page * CUSTOMERS_A_PAGE]]
    return CustomersAnswer(customers=[answer_of(overview, one) for one in shown], total=len(found), page=page)


@router.get("/customers/{customer_id}/panel", response_model=PanelAnswer, responses={304: {"description": "As before"}})
def customer_panel(request: Request, panel: OfPanel, customer: OfCustomer) -> Response:
    """The day so far."""
    overview = panel.overview
    return conditional_response(
        request,
        etag(customer, overview.version, overview.day),
        lambda: answer_of(overview, customer).model_dump_json().encode(),
        "application/json",
    )


@router.get("/customers/{customer_id}/minutes")
def minutes(
    panel: OfPanel, customer: OfCustomer, start: Start = None, end: End = None, channel: OfChannel = None
) -> MinutesAnswer:
    """Notifications per minute and channel, by default of the last hour; of at most two days."""
    last = _within(end) or panel.clock()
    first = _within(start) or max(last - timedelta(hours=1), _EARLIEST)
    if not timedelta(0) <= last - first <= _MOST_MINUTES:
        raise Refused(400, "from must come before to, by two days at most")
    rows = queries.minutes(panel.lake, customer.customer_id, first, last, channel).to_pylist()
    return MinutesAnswer(minutes=[MinuteCount(**row) for row in rows])


@router.get("/customers/{customer_id}/bills", responses=_problems(409))
def bills(
    panel: OfPanel,
    customer: OfCustomer,
    start: Annotated[date | None, Query(alias="from", description="First day.")] = None,
    end: Annotated[date | None, Query(alias="to", description="Last day, included.")] = None,
) -> BillsAnswer:
    """The bills of some days, by default of the month so far; days that are open are provisional."""
    last = end or panel.today
    first = start or last.replace(day=1)
    return bills_of(panel, customer, days_to_bill(panel, first, last))


@router.get(
    "/customers/{customer_id}/statement",
    response_class=Response,
    responses=_problems(429)
    | {200: {"description": "The statement", "content": {kind: {} for kind in ("application/pdf", "text/csv", "*/*")}}},
)
def statement(
    request: Request,
    panel: OfPanel,
    customer: OfCustomer,
    month: Annotated[str, Query(pattern=r"^\d{4}-\d{2}$", description="The month, as 2020-02.")],
    format: StatementFormat = "pdf",
) -> Response:
    """The statement of a month as a file: days, channels, adjustments, totals, and whether all of it is final."""
    count_export(request)
    return statement_of(panel, customer, month, format)


@router.get("/customers/{customer_id}/messages")
def messages(
    panel: OfPanel,
    customer: OfCustomer,
    start: Start = None,
    end: End = None,
    channel: OfChannel = None,
    limit: Annotated[int, Query(ge=1, le=_PER_PAGE)] = 100,
    cursor: Annotated[str | None, Query(max_length=_LONGEST_CURSOR, description="`next` of the page before.")] = None,
) -> MessagesAnswer:
    """The detailed report, a page at a time: of `limit` messages, or of fewer that have 4 MiB together."""
    after = _position(cursor) if cursor else None
    page = queries.page(panel.lake, customer.customer_id, channel, _within(start), _within(end), after, limit)
    fields = ("message_id", "channel", "payload", "event_datetime")
    return MessagesAnswer(
        messages=[MessageItem(**row) for row in page.rows.select(fields).to_pylist()],
        next=_cursor(*page.next) if page.next else None,
    )


@router.get(
    "/customers/{customer_id}/messages/export",
    response_class=Response,
    responses=_problems(429)
    | {200: {"description": "The report", "content": {kind: {} for kind in ("text/csv", "text/plain", "*/*")}}},
)
def export(
    request: Request,
    panel: OfPanel,
    customer: OfCustomer,
    start: Start = None,
    end: End = None,
    channel: OfChannel = None,
    format: Format = "csv",
) -> Response:
    """The whole detailed report of a period as a file, streamed."""
    count_export(request)
    return download(request, panel, customer, _within(start), _within(end), channel, format)


def download(
    request: Request,
    panel: Panel,
    customer: Customer,
    start: datetime | None,
    end: datetime | None,
    channel: str | None,
    format: Format,
) -> Download:
    """The detailed report as a file."""
    at_once = partial(rows_at_once, request.app.state.export_threads)
    try:
        batches, names = queries.detailed(panel.lake, customer.customer_id, channel, start, end, at_once)
    except queries.Unknown:
        batches, names = iter(()), {}
    write = partial(write_detailed, batches, format=format, names=names)
    return Download(name_of(customer, start, end), format, write)


def answer_of(overview: Overview, customer: Customer) -> PanelAnswer:
    """A customer's panel."""
    return PanelAnswer(
        customer_id=customer.customer_id,
        customer_name=customer.name,
        date=overview.day,
        notifications=customer.notifications,
        channels=[
            ChannelCount(channel=one.name, notifications=one.notifications, last_event=one.last_event)
            for one in customer.channels
        ],
        updated_at=overview.updated_at,
        table_version=overview.version,
    )


def bills_of(
    panel: Panel,
    customer: Customer,
    days: list[date],
    prefetched: statements.Prefetched | None = None,
    lake: Lake | None = None,
) -> BillsAnswer:
    """The bills of these days, as statements.bills; `lake` is that of a view. Raises BillRefused for an open day that
    can't be priced."""
    lake = lake or panel.lake
    try:
        lines, adjustments = statements.bills(lake, panel.settings, days, customer.customer_id, prefetched=prefetched)
    except queries.Unknown:
        return BillsAnswer(lines=[], adjustments=[], totals={}, total=Decimal("0.00"))
    of_day = sorted(lines.to_pylist(), key=lambda row: (row["billing_date"], row["channel"] or ""))
    of_adjustment = sorted(adjustments.to_pylist(), key=lambda row: (row["billing_date"], row["created_at"]))
    billed = [(row["currency"], row["amount"]) for row in of_day]
    totals = sum_by_currency(billed + [(row["currency"], row["amount_delta"]) for row in of_adjustment])
    return BillsAnswer(
        lines=[
            Line(date=row["billing_date"], **{k: row[k] for k in Line.model_fields if k != "date"}) for row in of_day
        ],
        adjustments=[
            Adjustment(date=row["billing_date"], **{k: row[k] for k in Adjustment.model_fields if k != "date"})
            for row in of_adjustment
        ],
        totals=totals,
        total=sum(totals.values(), Decimal("0.00")) if len(totals) < 2 else None,
    )


def statement_of(panel: Panel, customer: Customer, month: str, format: StatementFormat) -> Download:
    """The statement as a file. Raises Refused for no month, and for one that is still to come."""
    try:
        first = date.fromisoformat(f"{month}-01")
        if first < _EARLIEST.date().replace(day=1):
            raise ValueError(month)
        found = statements.statement(panel.lake, panel.settings, customer.customer_id, first, panel.today)
    except queries.Unknown:
        raise Refused(404, "no message was counted yet") from None
    except ValueError:
        raise Refused(400, "month must be one like 2020-02 that has begun") from None
    name = f"extrato-{customer.customer_id}-{month}"
    return Download(name, format, partial(write_statement, found, format=format))


def bills_file(panel: Panel, customer: Customer, first: date, last: date, format: Format) -> Download:
    """The bills of some days as a file. Raises Refused for too many days, BillRefused for one that can't be priced."""
    days = days_to_bill(panel, first, last)
    try:
        found = statements.bills(panel.lake, panel.settings, days, customer.customer_id)
    except queries.Unknown:
        raise Refused(404, "no message was counted yet") from None
    return Download(
        f"cobrancas-{customer.customer_id}-{first}-{last}", format, partial(write_billing, *found, format=format)
    )


def days_to_bill(panel: Panel, first: date, last: date) -> list[date]:
    """The days from `first` to `last`, both included. Raises Refused for those that nobody may ask for."""
    if not (date(1970, 1, 2) <= first <= last <= panel.today and (last - first).days < _MOST_DAYS):
        raise Refused(400, f"from must not come after to, to not after today, and {_MOST_DAYS} days are the most")
    return list(days_between(first, last))


def etag(customer: Customer, *state: object) -> str:
    """A name for what is shown of a customer in this state; of another customer it is another one."""
    return f'"{hashlib.sha256(repr((customer.customer_id, *state)).encode()).hexdigest()[:24]}"'


def conditional_response(request: Request, tag: str, body: Callable[[], bytes], kind: str) -> Response:
    """304 if the client has this state already; else what `body()` gives."""
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie, Accept-Language"}
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(body(), media_type=kind, headers=headers)


def _within(moment: datetime | None) -> datetime | None:
    """The moment in UTC. Raises Refused for one that no message can have."""
    if moment is None:
        return None
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise Refused(400, "no message is from then") from None
    if not _EARLIEST <= moment <= _LATEST:
        raise Refused(400, "no message is from then")
    return moment


def _cursor(moment: datetime, message_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([moment.isoformat(), message_id], ensure_ascii=False).encode()).decode()


def _position(cursor: str) -> tuple[datetime, str]:
    """The event and message id of a cursor; whose messages are asked for is never in it."""
    try:
        moment, message_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        position = datetime.fromisoformat(moment)
        if not isinstance(message_id, str) or position.tzinfo is None:
            raise ValueError(cursor)
        message_id.encode()
    except (ValueError, TypeError, AttributeError):
        raise Refused(400, "not a cursor: take `next` of the page before") from None
    return _within(position) or position, message_id
