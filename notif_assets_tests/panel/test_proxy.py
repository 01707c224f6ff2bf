"""docs/nginx.conf as it is, but for its ports and places: the panel with TLS, the Dagster UI behind a password."""

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from notif_assets.panel.access import COOKIE
from notif_assets_tests.cli.deployment import ROOT, a_free_port, killed_at_the_end, until
from notif_assets_tests.cli.messages import ACME
from notif_assets_tests.panel.conftest import Served

PANEL, DAGSTER = {"Host": "painel.example.com"}, {"Host": "dagster.example.com"}


@pytest.fixture(scope="module")
def proxied(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    """A client of nginx in front of the panel and of a read-only UI, and nginx's folder."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None and "CI" not in os.environ:
        pytest.skip("needs nginx: apt-get install nginx")
    assert nginx is not None
    home = tmp_path_factory.mktemp("nginx")
    for name in ("painel", "dagster"):
        made = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.pem"
        subprocess.run(made.split(), cwd=home, check=True, capture_output=True)
    password = subprocess.run(["openssl", "passwd", "-6", "secret"], check=True, capture_output=True, text=True).stdout
    (home / "dagster.passwd").write_text(f"ana:{password}")
    home.chmod(0o755)
    port, ui = a_free_port(), a_free_port()
    example = (ROOT / "docs" / "nginx.conf").read_text()
    for place in ("/etc/nginx/tls", "/etc/nginx", "/var/log/nginx"):
        example = example.replace(f" {place}/", f" {home}/")
    example = example.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    example = example.replace("http://127.0.0.1:8000", served.url).replace(":3000", f":{ui}")
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Where root runs the tests, nginx's workers would be nobody, who may not read what the tests write.
    user = "user root; " if os.getuid() == 0 else ""
    whole = (
        f"{user}daemon off; pid {home}/pid; error_log {home}/error.log; events {{}} http {{ {temporary}\n{example} }}"
    )
    (home / "nginx.conf").write_text(whole)
    webserver = ["-m", "dagster_webserver", "--read-only", "-m", "notif_assets.definitions", "-p", str(ui)]
    with ExitStack() as opened:
        for command in ([nginx, "-c", str(home / "nginx.conf")], [sys.executable, *webserver]):
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
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = opened.enter_context(httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=30))
        until(lambda: _is_up(client) or process.poll() is not None, "the start of nginx and the UI", 90)
        yield client, home


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/server_info", headers=DAGSTER, auth=("ana", "secret")).status_code == 200
    except httpx.TransportError:
        return False


def test_the_panel_behind_tls(proxied: tuple[httpx.Client, Path], served: Served) -> None:
    client, home = proxied
    token = served.token(ACME)
    entered = client.get(f"/entrar?t={token}", headers=PANEL)
    assert entered.status_code == 303
    assert entered.headers["location"] == "/"
    assert re.search(rf"{COOKIE}=.*; Secure", entered.headers["set-cookie"])
    assert entered.headers["Strict-Transport-Security"]
    mine = {**PANEL, "Cookie": f"{COOKIE}={token}"}
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
    told = client.post("/graphql", json=asked, headers=DAGSTER, auth=("ana", "secret")).json()
    permissions = {one["permission"]: one["value"] for one in told["data"]["permissions"]}
    assert permissions["launch_pipeline_execution"] is False
    assert permissions["launch_partition_backfill"] is False
