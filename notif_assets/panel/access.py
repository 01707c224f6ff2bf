"""Access to the panel: tokens of requests, limits, headers and the log of requests.

Belongs here: where a request carries its token, whose rows it may ask for, limits, headers, the log of requests.
Doesn't: what makes a token good (tokens.py), what is shown (api.py, pages.py).

A customer who asks for another customer gets the answer that an unknown customer gets, whether that one exists or not.
"""

import logging
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Path, Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notif_assets.panel.metrics import REQUESTS, SECONDS
from notif_assets.panel.revoked import Revoked
from notif_assets.panel.snapshot import Customer, Panel
from notif_assets.panel.tokens import Keys, TokenRefused, Viewer

COOKIE = "notif_panel"
HEAD = "notif_assets.head"
"""In the scope of a request: only the beginning of its answer is wanted."""

_LONGEST_PART = re.compile("[^/]{65,}")
_log = logging.getLogger("notif_assets.panel")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_SECURE = {"Strict-Transport-Security": "max-age=31536000"}


class Refused(Exception):
    """A request that is not answered: the status, and a sentence that tells nothing about what exists."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


# Dependencies that never wait are coroutines: each of the others takes a turn of its own in a thread.


async def panel_of(request: Request) -> Panel:
    """The application's view of the lake."""
    panel: Panel = request.app.state.panel
    return panel


def cookie_of(request: Request) -> str:
    """The name of the cookie that has the token. Behind TLS no other host of the domain can set one of that name."""
    return f"__Host-{COOKIE}" if request.scope["scheme"] == "https" else COOKIE


def viewer_of_token(request: Request, token: str) -> Viewer:
    """The viewer of a token. Raises Refused (401), and LakeError if the revocations can't be read."""
    keys: Keys = request.app.state.keys
    revoked: Revoked = request.app.state.revoked
    try:
        viewer = keys.viewer(token.strip())
    except TokenRefused:
        viewer = None
    if viewer is None or viewer in revoked:
        raise Refused(401, "a valid token is needed", **{"WWW-Authenticate": "Bearer"})
    return viewer


async def viewer_of(request: Request) -> Viewer:
    """Who asks, by the header `Authorization: Bearer …`, else by the cookie. Raises Refused (401)."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        token = request.cookies.get(cookie_of(request), "")
    viewer = request.state.viewer = viewer_of_token(request, token)
    return viewer


def is_cross_site(request: Request) -> bool:
    """Whether a page of another site made a browser send the request. Browsers say so; other clients don't."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")  # of browsers before 2023, of posts only
    return origin is not None and origin != f"{request.scope['scheme']}://{request.headers.get('host')}"


async def require_same_site(request: Request) -> None:
    """Raises Refused (403) for what a page of another site sends."""
    if is_cross_site(request):
        raise Refused(403, "this is not answered to other sites")


AnyViewer = Annotated[Viewer, Depends(viewer_of)]
OfPanel = Annotated[Panel, Depends(panel_of)]


async def operator(viewer: AnyViewer) -> Viewer:
    """An operator. Raises Refused: 401, 403."""
    if not viewer.is_operator:
        raise Refused(403, "this is for operators")
    return viewer


Operator = Annotated[Viewer, Depends(operator)]


def customer(
    customer_id: Annotated[int, Path(ge=1, le=2**63 - 1, description="The customer's id.")],
    viewer: AnyViewer,
    panel: OfPanel,
) -> Customer:
    """The customer of the path, if the viewer may see it and it is known. Raises Refused: 401, 404."""
    # Before it is looked up: how long the answer takes tells nothing either.
    if viewer.customer_id not in (None, customer_id):
        raise Refused(404, "no such customer")
    found = panel.overview.customers.get(customer_id)
    if found is None and viewer.is_operator:
        raise Refused(404, "no such customer")
    # A customer whose first message is still to come has a page too: its own.
    return found or Customer(customer_id, "", ())


OfCustomer = Annotated[Customer, Depends(customer)]


class ExportLimit:
    """How many exports a person may begin in a minute, and how many may go on at once: of a person, and of all."""

    def __init__(self, per_minute: int, at_once: int = 3, of_all: int = 24) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._limit = RateLimitItemPerMinute(per_minute)
        self._at_once, self._of_all = at_once, of_all
        self._going_on: Counter[str] = Counter()

    def count_start(self, viewer: Viewer) -> None:
        """Counts one. Raises Refused (429)."""
        if not self._limiter.hit(self._limit, viewer.person):
            raise Refused(429, "too many exports in a minute", **{"Retry-After": "60"})

    @contextmanager
    def hold_slot(self, viewer: Viewer) -> Iterator[None]:
        """While an export of the viewer goes on; on the event loop's thread only. Raises Refused: 429, 503."""
        person = viewer.person
        if self._going_on.total() >= self._of_all:
            raise Refused(503, "as many exports are written as can be now", **{"Retry-After": "10"})
        if self._going_on[person] >= self._at_once:
            raise Refused(429, f"{self._at_once} exports go on already: wait for one to end", **{"Retry-After": "10"})
        self._going_on[person] += 1
        try:
            yield
        finally:
            self._going_on[person] -= 1
            if not self._going_on[person]:
                del self._going_on[person]


def count_export(request: Request) -> None:
    """Counts an export of the viewer of the request. Raises Refused (429)."""
    limit: ExportLimit = request.app.state.export_limit
    limit.count_start(request.state.viewer)


class ResponseMiddleware:
    """Around the whole application: the headers of every answer, HEAD, a line in the log, and the metrics.

    The log has method, path without the query, status and time; a token is never in it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", HEAD: True}
        began = time.perf_counter()
        outgoing = _OutgoingResponse(scope, send)
        try:
            await self._app(scope, receive, outgoing.send)
        except Exception as error:
            # The place of the error, but not its text, which may hold personal data.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s\n%s", type(error).__name__, where)
            if outgoing.started:  # the connection must break: a part must not look like the whole
                raise ConnectionAbortedError(type(error).__name__) from None
            await PlainTextResponse("Internal Server Error\n", 500)(scope, receive, outgoing.send)
        finally:
            _note(scope, outgoing.status, time.perf_counter() - began)


class _OutgoingResponse:
    """A response on its way out: with the common headers, and without its body for HEAD."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status, self.started = 500, False
        self._only_head = HEAD in scope
        self._headers = HEADERS | (_SECURE if scope["scheme"] == "https" else {})
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started = message["status"], True
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        elif self._only_head:
            message = {**message, "body": b""}
        await self._send(message)


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "unknown")
    method = "HEAD" if HEAD in scope else scope["method"] if scope["method"] in ("GET", "POST") else "other"
    REQUESTS.labels(method, route, status).inc()
    SECONDS.labels(route).observe(seconds)
    # A link whose `?` was lost on the way has its token in the path.
    path = _LONGEST_PART.sub("...", scope["path"]).encode("unicode_escape").decode()[:200]
    _log.info("%s %s %s %.0f ms", method if method != "other" else scope["method"], path, status, seconds * 1000)
