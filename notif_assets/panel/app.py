"""The application: routes, headers, errors, and what lives as long as it does.

Belongs here: putting the parts together, what an error looks like, health. Doesn't: any page or number.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from importlib.resources import files

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from notif_assets.billing.lines import BillRefused
from notif_assets.lake import LakeError
from notif_assets.lake.pieces import NO_MEMORY
from notif_assets.panel import api, export, memory, metrics, pages
from notif_assets.panel.access import ExportLimit, OfPanel, Operator, Refused, ResponseMiddleware
from notif_assets.panel.connections import BOUNDS, end_if_stalled
from notif_assets.panel.revoked import Revoked
from notif_assets.panel.snapshot import Panel
from notif_assets.panel.tokens import Keys
from notif_assets.settings import Settings

_READY_WITHIN_SECONDS = 600.0
_log = logging.getLogger("notif_assets.panel")


def build_app(settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> FastAPI:
    """The panel of a deployment. Raises KeyRefused."""
    panel = Panel(settings, clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.export_threads = export.threads()
        panel.start()
        try:
            yield
        finally:
            panel.stop()

    app = FastAPI(
        title="notif-assets",
        summary="Notifications, bills and messages of a customer.",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # their scripts come from other hosts
        redoc_url=None,
        redirect_slashes=False,  # which would lead to the host that the request names, whichever that is
        lifespan=lifespan,
    )
    app.state.panel = panel
    app.state.keys = Keys.of(settings)
    app.state.revoked = Revoked(settings.lake)
    app.state.export_limit = ExportLimit(settings.panel_exports)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=str(files("notif_assets.panel") / "static")), name="static")
    app.add_api_route("/healthz", _alive, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.add_api_route("/metrics", _metrics, include_in_schema=False)
    app.add_middleware(ResponseMiddleware)
    for kind, handler in (
        (Refused, _refused),
        (HTTPException, _not_found),
        (RequestValidationError, _wrong_parameter),
        (LakeError, _unreadable),
        (MemoryError, _no_memory),
        (BillRefused, _unpriced),
    ):
        app.add_exception_handler(kind, handler)  # type: ignore[arg-type]
    return app


def serve(settings: Settings, host: str, port: int, ready: Callable[[], None]) -> None:
    """Serves until it is interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    app = build_app(settings)
    memory.freeze_startup_objects()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
            await super().startup(sockets)  # type: ignore[arg-type]
            if self.started:
                ready()

    config = uvicorn.Config(
        app,
        host,
        port,
        access_log=False,  # it would have the query, and with it tokens
        log_level="warning",
        timeout_graceful_shutdown=5,
        **BOUNDS,
    )
    with closing(config.bind_socket()) as listening:
        end_if_stalled(listening)
        Server(config).run(sockets=[listening])


async def _alive() -> Response:
    return PlainTextResponse("ok\n")


def _ready(panel: OfPanel) -> Response:
    """Whether the lake can be read and the numbers are of these minutes."""
    if panel.problem:
        return _problem(503, "the lake can't be read")
    updated_at = panel.overview.updated_at
    if updated_at is None or (panel.clock() - updated_at).total_seconds() > _READY_WITHIN_SECONDS:
        since = f"since {updated_at:%Y-%m-%dT%H:%M:%SZ}" if updated_at else "yet"
        return _problem(503, f"nothing was counted {since}")
    return PlainTextResponse("ready\n")


def _metrics(panel: OfPanel, _viewer: Operator) -> Response:
    return Response(metrics.exposition(panel), media_type="text/plain; version=0.0.4; charset=utf-8")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    titles = {
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        408: "Request Timeout",
        409: "Conflict",
        413: "Content Too Large",
    }
    titles |= {422: "Unprocessable Content", 429: "Too Many Requests", 503: "Service Unavailable"}
    content = {"title": titles.get(status, "Error"), "status": status, "detail": detail}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def _error_response(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A problem for a program, a page for a person."""
    if request.scope["path"].startswith(("/api/", "/metrics", "/healthz", "/readyz")):
        return _problem(status, detail, headers)
    response = pages.render(request, "problem.html", status, code=status)
    response.headers.update(headers or {})
    return response


async def _refused(request: Request, error: Refused) -> Response:
    return _error_response(request, error.status, error.detail, error.headers)


async def _not_found(request: Request, error: HTTPException) -> Response:
    return _error_response(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _wrong_parameter(request: Request, error: RequestValidationError) -> Response:
    # The value itself is not told: it may be anything.
    locations = [tuple(problem["loc"]) for problem in error.errors()]
    wrong = sorted({".".join(map(str, location[1:])) for location in locations})
    if ("path", "customer_id") in locations:
        return _error_response(request, 404, "no such customer")
    return _error_response(request, 422, f"wrong: {', '.join(wrong)}")


async def _unreadable(request: Request, error: LakeError) -> Response:
    _log.error("the lake can't be read: %s", error)
    return _error_response(request, 503, "the lake can't be read now", {"Retry-After": "10"})


async def _no_memory(request: Request, _error: MemoryError) -> Response:
    _log.error("%s could not be answered: %s", request.scope["path"], NO_MEMORY)
    return _error_response(request, 503, "there is not enough memory for it now", {"Retry-After": "10"})


async def _unpriced(request: Request, _error: BillRefused) -> Response:
    return _error_response(request, 409, "a channel of an open day has no price yet")
