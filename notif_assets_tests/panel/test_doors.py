"""What another site's page can make a browser do, and what an address may be: the panel's own doors.

Belongs here: coming and going, HEAD, redirects, and that nothing a person can send gives a 500. Doesn't: who may see
what (test_access.py), how much a connection may take (test_connections.py).
"""

import contextlib
import socket
import statistics
import time
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.openapi.utils import get_openapi
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from notif_assets.panel.access import COOKIE
from notif_assets.panel.app import build_app
from notif_assets.panel.snapshot import Customers
from notif_assets.settings import Settings
from notif_assets_tests.cli.messages import ACME, PADARIA
from notif_assets_tests.panel.conftest import UNKNOWN, Served
from notif_assets_tests.panel.test_access import OPEN, of, routes

__all__ = ["routes"]

FOREIGN = ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"})
FOREIGN_POSTS = (*FOREIGN, {"Origin": "https://evil.example"}, {"Origin": "null"})


def test_a_link_on_another_site_asks_before_it_enters(served: Served) -> None:
    token = served.token(ACME)
    for headers in FOREIGN:
        with httpx.Client(base_url=served.url, headers=headers) as browser:
            asked = browser.get(f"/entrar?t={token}")
            assert asked.status_code == 200
            assert "set-cookie" not in asked.headers
            assert f"cliente {ACME}" in asked.text
            assert asked.headers["Cache-Control"] == "no-store"
            assert browser.get("/entrar?t=wrong").status_code == 401
            entered = browser.post("/entrar", data={"t": token}, headers={"Sec-Fetch-Site": "same-origin"})
            assert (entered.status_code, entered.headers["location"]) == (303, "/")
            assert browser.get("/", follow_redirects=True).url.path == f"/clientes/{ACME}"


@pytest.mark.parametrize("headers", FOREIGN_POSTS)
def test_another_site_can_neither_log_in_nor_out(served: Served, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=served.url, headers=headers) as browser:
        for path, form in (("/entrar", {"t": served.token(PADARIA)}), ("/sair", {})):
            answer = browser.post(path, data=form)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("own", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": ""}])
def test_the_panels_own_pages_log_in_and_out(served: Served, own: dict[str, str]) -> None:
    headers = {"Origin": served.url} if "Origin" in own else own
    with httpx.Client(base_url=served.url, headers=headers) as browser:
        assert browser.get(f"/entrar?t={served.token(ACME)}").status_code == 303
        assert browser.post("/entrar", data={"t": served.token(PADARIA)}).status_code == 303
        assert browser.get("/").headers["location"] == f"/clientes/{PADARIA}"
        left = browser.post("/sair")
        assert left.status_code == 303
        assert left.headers["Clear-Site-Data"] == '"cache"'
        assert browser.get("/").status_code == 401


def test_a_form_that_is_none_is_refused(served: Served) -> None:
    for body, status in ((b"", 401), (b"t=", 401), (b"t=%ff", 401), (b"\xff\xfe", 401), (b"x" * 40_000, 413)):
        assert httpx.post(f"{served.url}/entrar", content=body).status_code == status


def test_behind_tls_only_the_host_itself_can_set_the_cookie(served: Served) -> None:
    token, other = served.token(ACME), served.token(PADARIA)
    entered = served.bare(f"/entrar?t={token}", X_Forwarded_Proto="https")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"__Host-{COOKIE}={token};")
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie
    planted = f"__Host-{COOKIE}={token}; {COOKIE}={other}"
    for order in (planted, "; ".join(reversed(planted.split("; ")))):
        home = served.bare("/", Cookie=order, X_Forwarded_Proto="https")
        assert home.headers["location"] == f"/clientes/{ACME}"
    assert served.bare("/", Cookie=f"{COOKIE}={other}", X_Forwarded_Proto="https").status_code == 401
    left = httpx.post(f"{served.url}/sair", headers={"X-Forwarded-Proto": "https"})
    assert left.headers["set-cookie"].startswith(f'__Host-{COOKIE}="";')
    assert "Secure" in left.headers["set-cookie"]


def test_no_redirect_leads_to_where_the_host_header_says(served: Served, routes: list[str]) -> None:
    for path in (*(of(path, ACME) for path in routes), *OPEN, "/static"):
        address, question, query = path.partition("?")
        for strange in (f"{address}/{question}{query}", f"/{path}", path):
            answer = served.get(strange, Host="evil.example")
            assert "evil.example" not in str(answer.headers)
            assert answer.headers.get("location", "/").startswith("/")
            assert not answer.headers.get("location", "/").startswith("//")


def test_head_is_answered_where_get_is(served: Served, routes: list[str]) -> None:
    for path in (*(of(path, ACME) for path in routes), *OPEN - {"/sair"}, "/nothing"):
        for whom in (ACME, None):
            headers = {"Authorization": f"Bearer {served.token(whom)}"}
            got, asked = (httpx.request(how, served.url + path, headers=headers, timeout=60) for how in ("GET", "HEAD"))
            assert (asked.status_code, asked.content) == (got.status_code, b""), path
            same = {"content-type", "cache-control", "x-frame-options", "etag", "location", "content-disposition"}
            assert {k: v for k, v in asked.headers.items() if k in same} == {
                k: v for k, v in got.headers.items() if k in same
            }, path
    assert "HEAD /healthz 200" in served.log()


def test_head_of_an_export_writes_none(served: Served) -> None:
    """Its answer would else be made whole, for nobody."""
    app = build_app(Settings(data=served.deployment.home / "data"))
    with TestClient(app) as client:
        header = {"Authorization": f"Bearer {served.token(ACME)}"}
        app.state.export_threads = None  # nothing may ask for one
        assert client.head(f"/api/v1/customers/{ACME}/messages/export", headers=header).status_code == 200


def test_another_customer_is_refused_before_it_is_looked_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an answer takes as long whether it exists or not."""
    looked_up: list[int] = []
    get = Customers.__getitem__

    def noting(customers: Customers, customer_id: int) -> Any:
        looked_up.append(customer_id)
        return get(customers, customer_id)

    monkeypatch.setattr(Customers, "__getitem__", noting)
    with TestClient(build_app(Settings(data=served.deployment.home / "data"))) as client:
        header = {"Authorization": f"Bearer {served.token(ACME)}"}
        for whom in (PADARIA, UNKNOWN, ACME):
            client.get(f"/api/v1/customers/{whom}/panel", headers=header)
    assert set(looked_up) == {ACME}


def test_an_unknown_and_another_customer_take_as_long(served: Served) -> None:
    """By the clock too, and generously: it was a fifth more, or two thirds with many channels."""
    took: dict[int, list[float]] = {PADARIA: [], UNKNOWN: []}
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.token(ACME)}"}) as client:
        for _ in range(300):
            for whom, times in took.items():
                began = time.perf_counter()
                assert client.get(f"/api/v1/customers/{whom}/panel").status_code == 404
                times.append(time.perf_counter() - began)
    slower, faster = sorted((statistics.median(times) for times in took.values()), reverse=True)
    assert slower < 1.5 * faster


def test_a_link_that_lost_its_question_mark_is_not_logged(served: Served) -> None:
    token = served.token(ACME)
    for path in (f"/entrar%3Ft={token}", f"/entrar/{token}", f"//entrar?t={token}", f"/{token}"):
        served.bare(path)
    assert "/entrar" in served.log()
    for part in token.split("."):
        assert part[:20] not in served.log()


def _raw(served: Served, request: bytes) -> bytes:
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in answer and (piece := client.recv(4096)):
                answer += piece
    return answer


_VALUES = st.binary(max_size=60) | st.sampled_from(
    [
        b"[",
        b"[::1",
        b"a b",
        b"]",
        b"//",
        b"%",
        b"\xff",
        b"://",
        b"127.0.0.1:x",
        b"http",
        b"https",
        b"javascript",
        b"=;,",
    ]
)
_NAMES = st.sampled_from(
    [
        *(b"Host", b"Cookie", b"Authorization", b"Accept-Language", b"If-None-Match", b"Range", b"Origin", b"Expect"),
        *(b"X-Forwarded-Proto", b"X-Forwarded-For", b"X-Forwarded-Host", b"Forwarded", b"Sec-Fetch-Site", b"Upgrade"),
        *(
            b"Connection",
            b"Content-Length",
            b"Transfer-Encoding",
            b"Content-Type",
            b"If-Modified-Since",
            b"X-HTTP-Method",
        ),
    ]
)
_PATHS = [
    *(f"/clientes/{ACME}", f"/clientes/{ACME}/agora", f"/clientes/{ACME}/relatorio?de=2020-02-03&ate=2020-02-03"),
    *(f"/api/v1/customers/{ACME}/panel", f"/api/v1/customers/{ACME}/messages/export", "/operador?q=x", "/", "/nothing"),
    *("/entrar?t=x", "/entrar", "/sair", "/idioma/en?volta=/x", "/static/panel.css", "/static/../app.py", "/healthz"),
    *("*", "http://evil.example/", "/%00", "/%ff%fe", "/static/%00", "/idioma/en?volta=%0d%0aX:%20y", "/?%ff=%ff"),
]


@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"X"]),
    st.sampled_from(_PATHS),
    st.lists(st.tuples(_NAMES, _VALUES), max_size=4),
    st.sampled_from([ACME, None]),
)
@example(b"GET", "/", [(b"Host", b"[")], ACME)
@example(b"GET", f"/clientes/{ACME}", [(b"Host", b"[::1")], ACME)
@example(b"POST", "/sair", [(b"Host", b"[")], ACME)
@example(b"GET", "/entrar?t=x", [(b"X-Forwarded-Proto", b"javascript")], ACME)
def test_no_request_by_hand_gives_a_500(
    served: Served, method: bytes, path: str, headers: list[tuple[bytes, bytes]], whom: int | None
) -> None:
    token = served.token(whom).encode()
    lines = [method + b" " + path.encode() + b" HTTP/1.1", b"Authorization: Bearer " + token, b"Connection: close"]
    lines += [name + b": " + value.replace(b"\r", b"").replace(b"\n", b"") for name, value in headers]
    if not any(name == b"Host" for name, _ in headers):
        lines.append(b"Host: x")
    assert not _raw(served, b"\r\n".join(lines) + b"\r\n\r\n").startswith(b"HTTP/1.1 500")


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    """What every address of the application takes, as an OpenAPI document; the one it serves has only the API."""
    app = build_app(Settings(panel_key="k" * 32))
    return get_openapi(title="pages", version="1", routes=_shown(app.routes))


def _shown(found: Any) -> list[Any]:
    shown = []
    for route in found:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            shown += _shown(inner.routes)
        elif hasattr(route, "include_in_schema"):
            route.include_in_schema = True
            shown.append(route)
    return shown


def test_no_parameter_of_a_page_gives_a_500(served: Served, pages: dict[str, Any]) -> None:
    document = schemathesis.openapi.from_dict(pages)
    document.config.update(base_url=served.url)
    operations = [result.ok() for result in document.get_all_operations() if isinstance(result, Ok)]
    assert {operation.path for operation in operations} >= {"/entrar", "/sair", "/operador", "/clientes/{customer_id}"}
    for operation in operations:

        @settings(max_examples=25, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            for whom in (None, ACME):
                headers = {"Authorization": f"Bearer {served.token(whom)}"}
                if "customer_id" in case.path_parameters:
                    case.path_parameters["customer_id"] = ACME
                assert case.call(headers=headers).status_code != 500, case

        ask()
