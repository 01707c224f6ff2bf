"""Nobody sees what isn't theirs: every address of the application, with every wrong token and in every position."""

import re
from collections.abc import Iterator

import httpx
import jwt
import pytest
from fastapi.testclient import TestClient

from notif_assets.panel.access import COOKIE, HEADERS
from notif_assets.panel.app import build_app
from notif_assets.settings import Settings
from notif_assets_tests.cli.messages import ACME, PADARIA
from notif_assets_tests.panel.conftest import HOSTILE, HOSTILE_NAME, UNKNOWN, Served

OPEN = {"/healthz", "/readyz", "/api/v1/openapi.json", "/entrar", "/sair", "/idioma/{language}", "/static/panel.css"}
PERIOD = "?de=2020-02-03&ate=2020-02-03"
QUERIES = {
    "relatorio": PERIOD,
    "cobrancas": PERIOD,
    "extrato": "?mes=2020-02",
    "statement": "?month=2020-02",
}


@pytest.fixture(scope="module")
def routes() -> list[str]:
    """Every address that the application answers, as its routes say; a new one is tested the day it comes."""
    app = build_app(Settings(panel_key="k" * 32))
    return sorted({path for path in _paths(app.routes) if path not in OPEN | {"/static"}})


def _paths(routes: object) -> Iterator[str]:
    for route in routes:  # type: ignore[attr-defined]
        if hasattr(route, "path"):
            yield route.path
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "router", None)
            assert inner is not None, route
            yield from _paths(inner.routes)


def of(path: str, customer_id: object) -> str:
    """An address of a customer."""
    return path.replace("{customer_id}", str(customer_id)) + QUERIES.get(path.rpartition("/")[2], "")


def test_the_routes_are_known(routes: list[str]) -> None:
    assert "/api/v1/customers/{customer_id}/messages/export" in routes
    assert "/operador" in routes
    assert len(routes) == 16, routes


def test_without_a_good_token_nothing_is_shown(served: Served, routes: list[str]) -> None:
    expired = jwt.encode({"aud": "notif-assets-panel", "exp": 1, "role": "operator"}, "k" * 32, "HS256")
    for path in routes:
        for token in ("", "x", served.token(ACME)[:-2], expired):
            for headers in ({"Authorization": f"Bearer {token}".strip()}, {"Cookie": f"{COOKIE}={token}"}):
                answer = served.bare(of(path, ACME), **headers)
                assert answer.status_code == 401, (path, token)
                assert "Acme" not in answer.text


def test_another_customer_is_answered_as_one_that_does_not_exist(served: Served, routes: list[str]) -> None:
    of_customers = [path for path in routes if "{customer_id}" in path]
    assert len(of_customers) == 11
    for path in of_customers:
        assert served.get(of(path, ACME)).status_code == 200, path
        answers = [served.get(of(path, whom)) for whom in (PADARIA, UNKNOWN, HOSTILE)]
        assert {answer.status_code for answer in answers} == {404}
        bodies = {re.sub(r"/clientes/\d+|%2Fclientes%2F\d+", "", answer.text) for answer in answers}
        assert len(bodies) == 1, path
        for strange in ("0", "-1", "9223372036854775808", "x", "%00", f"{PADARIA}%2F..%2F{ACME}"):
            assert served.get(of(path, strange)).status_code == 404, (path, strange)


def test_what_is_for_operators_is_for_operators(served: Served, routes: list[str]) -> None:
    for path in (path for path in routes if "{customer_id}" not in path and path != "/"):
        assert served.get(path, None).status_code == 200, path
        assert served.get(path, ACME).status_code == 403, path
    for path in routes:
        assert served.get(of(path, UNKNOWN), None).status_code in ((404,) if "{customer_id}" in path else (200, 303))


def test_the_id_of_another_customer_in_any_other_place_changes_nothing(served: Served) -> None:
    theirs = served.get(f"/api/v1/customers/{PADARIA}/messages?limit=2", PADARIA).json()
    assert theirs["next"]
    for path in ("panel", "minutes", "bills", "messages", "messages/export"):
        address = f"/api/v1/customers/{ACME}/{path}"
        mine = served.get(address)
        for query in (f"customer_id={PADARIA}", f"customer={PADARIA}", f"cliente={PADARIA}"):
            assert served.get(f"{address}?{query}").text == mine.text
    followed = served.get(f"/api/v1/customers/{ACME}/messages?limit=500&cursor={theirs['next']}")
    mine_ids = {one["message_id"] for one in _all_messages(served, ACME)}
    assert {one["message_id"] for one in followed.json()["messages"]} <= mine_ids
    tag = served.get(f"/api/v1/customers/{PADARIA}/panel", PADARIA).headers["ETag"]
    asked = served.get(f"/api/v1/customers/{ACME}/panel", If_None_Match=tag)
    assert asked.status_code == 200
    assert asked.headers["ETag"] != tag
    refused = served.get(f"/api/v1/customers/{PADARIA}/panel", ACME, If_None_Match=tag)
    assert refused.status_code == 404
    link = f"/clientes/{PADARIA}/relatorio{PERIOD}&formato=csv"
    assert served.get(link, PADARIA).status_code == 200
    assert served.get(link, ACME).status_code == 404


def _all_messages(served: Served, customer_id: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = ""
    while True:
        page = served.get(f"/api/v1/customers/{customer_id}/messages?limit=500{cursor}", customer_id).json()
        found += page["messages"]
        if not page["next"]:
            return found
        cursor = f"&cursor={page['next']}"


def test_a_link_takes_the_token_once_and_hides_it(served: Served) -> None:
    token = served.token(ACME)
    with httpx.Client(base_url=served.url) as browser:
        entered = browser.get(f"/entrar?t={token}")
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        page = browser.get("/", follow_redirects=True)
        assert page.url.path == f"/clientes/{ACME}"
        assert token not in str(page.url)
        assert token not in page.text
        left = browser.post("/sair")
        assert left.status_code == 303
        assert browser.get("/").status_code == 401
    assert served.bare("/entrar?t=wrong").status_code == 401
    secure = served.bare(f"/entrar?t={token}", X_Forwarded_Proto="https")
    assert "Secure" in secure.headers["set-cookie"]
    assert secure.headers["Strict-Transport-Security"]
    assert token not in served.log()
    assert "GET /entrar 303" in served.log()


def test_the_way_back_from_a_language_stays_here(served: Served) -> None:
    for back, goes in (
        ("/operador", "/operador"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil", "/"),
    ):
        answer = served.bare(f"/idioma/en?volta={back}")
        assert (answer.status_code, answer.headers["location"]) == (303, goes)
    assert served.bare("/idioma/xx").status_code == 422


def test_every_answer_has_the_headers(served: Served, routes: list[str]) -> None:
    for path in (*routes, *OPEN, "/nothing", "/static/nothing"):
        for answer in (served.bare(of(path, ACME)), served.get(of(path, ACME))):
            for name, value in HEADERS.items():
                assert answer.headers[name] == value, path
            assert answer.headers["Cache-Control"], path
            if path not in OPEN:
                assert "public" not in answer.headers["Cache-Control"]


def test_hostile_texts_stay_texts(served: Served) -> None:
    for path, whom in ((f"/clientes/{HOSTILE}", HOSTILE), (f"/clientes/{HOSTILE}", None), ("/operador?q=script", None)):
        page = served.get(path, whom).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "&lt;script&gt;" in page
        assert "\u202e" not in page
    export = served.get(f"/api/v1/customers/{HOSTILE}/messages/export", HOSTILE)
    assert "'=HYPERLINK" in export.text
    assert export.headers["Content-Disposition"] == f'attachment; filename="notificacoes-{HOSTILE}.csv"'
    told = served.get(f"/api/v1/customers/{HOSTILE}/panel", HOSTILE).json()
    assert told["customer_name"] == HOSTILE_NAME


def test_exports_of_one_token_are_limited(served: Served) -> None:
    """On a panel of its own, whose limit is the default."""
    settings = Settings(data=served.deployment.home / "data", panel_exports=3)
    with TestClient(build_app(settings)) as client:
        for whom, token in ((ACME, served.token(ACME)), (PADARIA, served.token(PADARIA))):
            header = {"Authorization": f"Bearer {token}"}
            statuses = [
                client.get(address, headers=header).status_code
                for address in (
                    f"/api/v1/customers/{whom}/messages/export",
                    f"/clientes/{whom}/relatorio{PERIOD}",
                )
                for _ in range(2)
            ]
            assert statuses == [200, 200, 200, 429]
        answer = client.get(
            f"/api/v1/customers/{ACME}/messages/export", headers={"Authorization": f"Bearer {served.token(ACME)}"}
        )
        assert answer.headers["Retry-After"]
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_key_is_changed_without_breaking_links(served: Served) -> None:
    old = (served.deployment.home / "data" / "panel.key").read_text()
    settings = Settings(data=served.deployment.home / "data", panel_key="n" * 32, panel_old_key=old)
    with TestClient(build_app(settings)) as client:
        for token in (served.token(ACME), _minted(served, "n" * 32)):
            header = {"Authorization": f"Bearer {token}"}
            assert client.get(f"/api/v1/customers/{ACME}/panel", headers=header).status_code == 200


def _minted(served: Served, key: str) -> str:
    return served.deployment.call("token", "--customer", ACME, NOTIF_PANEL_KEY=key).text.strip()


def test_a_mistake_of_ours_tells_nothing_and_has_the_headers(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    app = build_app(Settings(data=served.deployment.home / "data"))

    name = "Padaria"

    def fails() -> None:
        raise ValueError(name)

    app.add_api_route("/api/v1/fails", fails)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/api/v1/fails")
    assert answer.status_code == 500
    assert answer.headers["Content-Security-Policy"]
    assert name not in answer.text + caplog.text
    assert "ValueError" in caplog.text
    assert "in fails" in caplog.text
