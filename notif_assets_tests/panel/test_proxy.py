"""docs/nginx.conf as it is, but for its ports and places: the panel with TLS, the Dagster UI behind a password."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from notif_assets.panel.access import COOKIE
from notif_assets_tests.cli.deployment import ROOT, a_free_port, killed_at_the_end, until
from notif_assets_tests.cli.messages import ACME
from notif_assets_tests.panel.conftest import Served

PANEL, DAGSTER = {"Host": "painel.example.com"}, {"Host": "dagster.example.com"}
ANA, RUI = ("ana", "secret"), ("rui", "secret")
"""One who may start runs, and one who looks on."""

STARTS = 'mutation { terminateRun(runId: "x") { __typename } }'
"""A mutation that changes nothing, for there is no such run."""


def _nginx() -> str:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None and "CI" not in os.environ:
        pytest.skip("needs nginx: apt-get install nginx")
    assert nginx is not None
    return nginx


def _configured(home: Path, panel: str, read_only: int, full: int) -> tuple[list[str], int]:
    """The command of an nginx with the example as it is, but for its places and ports, in `home`; and its port."""
    nginx, port = _nginx(), a_free_port()
    for name in ("painel", "dagster"):
        made = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.pem"
        subprocess.run(made.split(), cwd=home, check=True, capture_output=True)
    password = subprocess.run(["openssl", "passwd", "-6", "secret"], check=True, capture_output=True, text=True).stdout
    (home / "dagster.passwd").write_text(f"ana:{password}rui:{password}")
    home.chmod(0o755)
    example = (ROOT / "docs" / "nginx.conf").read_text()
    for place in ("/etc/nginx/tls", "/etc/nginx", "/var/log/nginx"):
        example = example.replace(f" {place}/", f" {home}/")
    example = example.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("# ana   ", "ana ")
    example = example.replace("http://127.0.0.1:8000", panel)
    example = example.replace("127.0.0.1:3001;", f"127.0.0.1:{read_only};").replace(":3000;", f":{full};")
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Where root runs the tests, nginx's workers would be nobody, who may not read what the tests write.
    user = "user root; " if os.getuid() == 0 else ""
    whole = (
        f"{user}daemon off; pid {home}/pid; error_log {home}/error.log; events {{}} "
        f"http {{ access_log {home}/access.log; {temporary}\n{example} }}"
    )
    (home / "nginx.conf").write_text(whole)
    return [nginx, "-c", str(home / "nginx.conf")], port


@contextmanager
def _running(served: Served, home: Path, *commands: list[str]) -> Iterator[list["subprocess.Popen[bytes]"]]:
    started = []
    with ExitStack() as opened:
        for command in commands:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=served.deployment.environment(),
                stdout=(home / "output.log").open("ab"),
                stderr=subprocess.STDOUT,
            )
            opened.enter_context(killed_at_the_end(process))
            opened.callback(process.wait, 20)  # nginx and the UI have processes of their own to end
            opened.callback(process.terminate)
            started.append(process)
        yield started


def _client(port: int) -> httpx.Client:
    def name_the_host(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = request.headers["Host"]

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hooks = {"request": [name_the_host]}
    return httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=30, event_hooks=hooks)


@pytest.fixture(scope="module")
def proxied(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    """A client of nginx in front of the panel, a read-only UI and one that starts runs; and nginx's folder."""
    home = tmp_path_factory.mktemp("nginx")
    read_only, full = a_free_port(), a_free_port()
    command, port = _configured(home, served.url, read_only, full)
    ui = [sys.executable, "-m", "dagster_webserver", "-m", "notif_assets.definitions", "-p"]
    with (
        _running(served, home, command, [*ui, str(full)], [*ui, str(read_only), "--read-only"]) as started,
        _client(port) as client,
    ):
        for who in (ANA, RUI):
            until(lambda who=who: _is_up(client, who) or _ended(started), "the start of nginx and the UI", 180)
        assert not _ended(started), (home / "output.log").read_text()
        yield client, home


def _ended(started: list["subprocess.Popen[bytes]"]) -> bool:
    return any(process.poll() is not None for process in started)


def _is_up(client: httpx.Client, who: tuple[str, str]) -> bool:
    try:
        return client.get("/server_info", headers=DAGSTER, auth=who).status_code == 200
    except httpx.TransportError:
        return False


def test_the_panel_behind_tls(proxied: tuple[httpx.Client, Path], served: Served) -> None:
    client, home = proxied
    token = served.token(ACME)
    entered = client.get(f"/entrar?t={token}", headers=PANEL)
    assert entered.status_code == 303
    assert entered.headers["location"] == "/"
    assert re.match(rf"__Host-{COOKIE}=.*; Secure", entered.headers["set-cookie"])
    assert entered.headers.get_list("Referrer-Policy") == ["no-referrer"]
    assert entered.headers["Strict-Transport-Security"]
    mine = {**PANEL, "Cookie": f"__Host-{COOKIE}={token}"}
    assert "Acme" in client.get(f"/clientes/{ACME}", headers=mine).text
    address = f"/api/v1/customers/{ACME}/messages/export"
    assert client.get(address, headers=mine).content == served.get(address).content
    log = (home / "painel.log").read_text()
    assert "GET /entrar 303" in log
    assert token not in log


def test_the_ui_behind_a_password_starts_nothing(proxied: tuple[httpx.Client, Path]) -> None:
    client, _ = proxied
    assert client.get("/server_info", headers=DAGSTER).status_code == 401
    assert client.get("/server_info", headers=DAGSTER, auth=("ana", "wrong")).status_code == 401
    asked = {"query": "{ permissions { permission value } }"}
    for who, may in ((RUI, False), (ANA, True)):
        told = client.post("/graphql", json=asked, headers=DAGSTER, auth=who).json()
        permissions = {one["permission"]: one["value"] for one in told["data"]["permissions"]}
        assert permissions["launch_pipeline_execution"] is may
        assert permissions["launch_partition_backfill"] is may


_FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://dagster.example.com"},
    {"Origin": "https://dagster.example.com.evil.example"},
    {"Origin": "https://painel.example.com"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://dagster.example.com"},
]
_OWN = [
    {},
    {"Origin": "https://dagster.example.com"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://dagster.example.com"},
]
_SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}


@pytest.mark.parametrize("whose", _FOREIGN, ids=str)
def test_another_site_starts_nothing(proxied: tuple[httpx.Client, Path], whose: dict[str, str]) -> None:
    """With the password that the browser has, of one who may."""
    client, _ = proxied
    headers = {**DAGSTER, **whose}
    ways: tuple[dict[str, Any], ...] = (
        {"json": {"query": STARTS}},
        {"params": {"query": STARTS}},
        {"content": STARTS, "headers": {**headers, "Content-Type": "application/graphql"}},
        {"params": {"query": STARTS}, "headers": {**headers, "Content-Type": "text/plain"}},
    )
    for how in ways:
        assert client.post("/graphql", auth=ANA, **{"headers": headers, **how}).status_code == 403
    assert client.get("/graphql", params={"query": STARTS}, headers=headers, auth=ANA).status_code == 403
    assert client.get("/graphql", headers={**headers, **_SOCKET}, auth=ANA).status_code == 403


@pytest.mark.parametrize("whose", _OWN, ids=str)
def test_the_ui_itself_starts_what_its_user_may(proxied: tuple[httpx.Client, Path], whose: dict[str, str]) -> None:
    client, _ = proxied
    headers = {**DAGSTER, **whose}
    for who, answer in ((ANA, "RunNotFoundError"), (RUI, "UnauthorizedError")):
        told = client.post("/graphql", json={"query": STARTS}, headers=headers, auth=who)
        assert told.status_code == 200
        assert told.json()["data"]["terminateRun"]["__typename"] == answer
    with client.stream("GET", "/graphql", headers={**headers, **_SOCKET}, auth=ANA) as followed:
        assert followed.status_code == 101


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_api_is_asked_by_post_alone(proxied: tuple[httpx.Client, Path], method: str) -> None:
    client, _ = proxied
    for path in ("/graphql", "/%67raphql", "//graphql"):
        address = f"{str(client.base_url).rstrip('/')}{path}"
        answer = client.request(method, address, params={"query": STARTS}, headers=DAGSTER, auth=ANA)
        assert answer.status_code == 405
        assert "terminateRun" not in answer.text


@pytest.mark.parametrize(
    "path", ["/", "/report_asset_materialization/prices", "/report_asset_check/prices?check_name=x", "/graphql/"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_else_of_the_ui_is_written_to(proxied: tuple[httpx.Client, Path], path: str, method: str) -> None:
    client, _ = proxied
    assert client.request(method, path, headers=DAGSTER, auth=ANA).status_code == 403


def test_the_ui_is_in_no_frame_of_another_site(proxied: tuple[httpx.Client, Path]) -> None:
    client, _ = proxied
    for path in ("/", "/runs", "/server_info"):
        answer = client.get(path, headers={**DAGSTER, "Sec-Fetch-Site": "cross-site"}, auth=ANA)
        assert answer.status_code == 200
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Strict-Transport-Security"]


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", "example.com", "x.dagster.example.com", ""])
@pytest.mark.parametrize("known", ["painel.example.com", "dagster.example.com", None])
def test_another_name_gets_no_answer(proxied: tuple[httpx.Client, Path], name: str, known: str | None) -> None:
    """Neither in the Host header, nor in TLS, nor in the request line."""
    client, _ = proxied
    for line in (b"GET / HTTP/1.1", b"GET http://%s/clientes/202/ HTTP/1.1" % name.encode()):
        request = line + b"\r\nHost: " + name.encode() + b"\r\nConnection: close\r\n\r\n"
        answer = _raw(client.base_url.port or 0, known, request)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert b"Location" not in answer


def _raw(port: int, name: str | None, request: bytes) -> bytes:
    """What nginx answers over TLS to a client that asked for a host of this name; nothing if it would not speak."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        suppress(ConnectionError, ssl.SSLError),
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        client.sendall(request)
        while piece := client.recv(2**16):
            answer += piece
    return answer


def test_tokens_are_in_no_log_however_the_panel_is(
    served: Served, proxied: tuple[httpx.Client, Path], tmp_path: Path
) -> None:
    """While the panel is away, and by a client that asks too often: nginx writes of both, and of other addresses."""
    token = served.token(ACME)
    command, port = _configured(tmp_path, "http://127.0.0.1:9", a_free_port(), a_free_port())
    with _running(served, tmp_path, command) as started, _client(port) as client:
        until(lambda: _answers(client) or _ended(started), "the start of nginx", 60)
        away = client.get(f"/entrar?t={token}", headers=PANEL)
        assert away.status_code == 502
        assert away.headers["Referrer-Policy"] == "no-referrer"
        paths = [f"/entrar?t={token}", f"/entrar%3Ft={token}", f"/entrar/{token}", f"//entrar?t={token}"]
        host = b"Host: painel.example.com\r\n\r\n"
        often = b"".join(b"GET %s HTTP/1.1\r\n" % path.encode() + host for path in [*paths * 60, "/other"])
        answers = _raw(port, PANEL["Host"], often + b"GET / HTTP/1.0\r\n" + host)
        assert b"HTTP/1.1 502 " in answers
        assert b"HTTP/1.1 429 " in answers
    client, home = proxied
    for path in paths:
        client.get(path, headers=PANEL)
    logs = {path: path.read_text() for folder in (tmp_path, home) for path in folder.glob("*.log")}
    assert "connect() failed" in logs[tmp_path / "error.log"]
    assert "limiting requests" in logs[tmp_path / "error.log"]
    assert "/other" in logs[tmp_path / "error.log"]
    assert len(logs) >= 6
    for log, text in logs.items():
        for part in token.split("."):
            assert part[:20] not in text, log


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/", headers=PANEL).status_code == 502
    except httpx.TransportError:
        return False
