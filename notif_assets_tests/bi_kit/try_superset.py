"""`make superset`: the kit in a real Superset, over a real PostgreSQL with a copied demo lake.

Belongs here: starting the parts, importing the kit through Superset's REST interface, opening each dashboard in
Chromium, holding what its charts asked for against the lake, and the pictures in docs/. Doesn't: what the kit holds
(test_kit.py). It is not run in CI: Superset takes minutes to install and to start.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import httpx
from playwright.sync_api import Page, Response, sync_playwright

from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets.sandbox.traffic import messages
from notif_assets_tests.cli.deployment import ROOT, Answer, Deployment, a_free_port, ok, until
from notif_assets_tests.postgres import a_server, binaries

_USER = _PASSWORD = "admin"
_CONFIG = """
SECRET_KEY = "of-this-machine-and-this-run-alone"
SQLALCHEMY_DATABASE_URI = "sqlite:///{folder}/superset.db"
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
"""
_DASHBOARDS = ("painel-do-cliente", "cobranca-do-mes", "qualidade-da-ingestao")
_PARTITIONS, _CUSTOMERS, _MESSAGES, _LATE = 12, 200, 20_000, 1_000
_PATIENCE = 300.0  # seconds: two cores start Superset in one

Charts = Mapping[str, list[dict[str, Any]]]
"""The rows that each chart, by its name, was given."""


def main(arguments: list[str] | None = None) -> int:
    """Runs it; 0 if every chart has the lake's numbers."""
    parser = argparse.ArgumentParser(prog="make superset", description="The kit in a real Superset.")
    parser.add_argument("--venv", type=Path, required=True, help="the virtual environment with Superset")
    venv = parser.parse_args(arguments).venv.absolute()
    if binaries() is None:
        print("make superset: no PostgreSQL: apt-get install postgresql", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="notif-assets-superset-"))
    try:
        with a_server() as server, EmbeddedBroker(partitions=_PARTITIONS) as broker:
            url = server.create_database("serving")
            deployment = _copied_lake(folder, broker, url)
            with _superset(folder / "superset", venv) as address:
                _import(deployment, address, url)
                charts = _charts_of(address)
            return _compared(deployment, charts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied_lake(folder: Path, broker: EmbeddedBroker, url: str) -> Deployment:
    """A lake with traffic of three days, two of them closed, and adjustments; and its copy."""
    deployment = Deployment(folder, broker.bootstrap, "notifications", _PARTITIONS, {"NOTIF_SERVING_URL": url})
    now = datetime.now(UTC)
    yesterday = now.date() - timedelta(days=1)
    ok(deployment.run("import-prices", ROOT / "notif_assets" / "samples" / "prices-demo.csv"))
    ok(deployment.run("import-invoices", ROOT / "notif_assets" / "samples" / "invoices.csv"))
    for seed, count in ((1, _MESSAGES), (2, _LATE)):
        start, rate = now - timedelta(days=3), count / timedelta(days=3).total_seconds()
        deployment.send(islice(messages(seed, _CUSTOMERS, start, rate, late=0), count))
        _told(deployment.run("ingest", "--until-caught-up"))
        _told(deployment.run("close-day", yesterday - timedelta(days=1), "--to", yesterday))
    _told(deployment.run("serve"))
    return deployment


def _told(answer: Answer) -> None:
    """A command's words, warnings too; broken messages are warned of."""
    print(answer.text, end="", flush=True)
    assert answer.code == 0, answer


@contextmanager
def _superset(folder: Path, venv: Path) -> Iterator[str]:
    """A Superset with an administrator, as long as the block; gives its address."""
    folder.mkdir()
    config = folder / "superset_config.py"
    config.write_text(_CONFIG.format(folder=folder))
    environment = os.environ | {
        "SUPERSET_CONFIG_PATH": str(config),
        "SUPERSET_HOME": str(folder),
        "FLASK_APP": "superset.app:create_app()",
        "TZ": "UTC",
    }
    command, port = str(venv / "bin" / "superset"), a_free_port()
    person = ("--firstname", "A", "--lastname", "B", "--email", "a@example.com")
    with (folder / "log").open("wb") as log:
        for arguments in (
            ("db", "upgrade"),
            ("fab", "create-admin", "--username", _USER, "--password", _PASSWORD, *person),
            ("init",),
        ):
            print("superset", *arguments[:2], flush=True)
            subprocess.run([command, *arguments], env=environment, stdout=log, stderr=log, check=True)
        serving = [command, "run", "--host", "127.0.0.1", "--port", str(port), "--with-threads"]
        process = subprocess.Popen(serving, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: _answers(address), "Superset's start", _PATIENCE)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _answers(address: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{address}/health", timeout=10).is_success
    return False


def _import(deployment: Deployment, address: str, url: str) -> None:
    """Twice: a newer kit replaces an older one."""
    place = urlsplit(url)
    where = ("--server", f"127.0.0.1:{place.port}", "--database", place.path.strip("/"), "--user", place.username)
    _told(deployment.run("bi-kit", "--out", "kit", *where))
    kit = deployment.home / "kit" / "superset.zip"
    with httpx.Client(base_url=f"{address}/api/v1", timeout=_PATIENCE) as client:
        login = {"username": _USER, "password": _PASSWORD, "provider": "db"}
        token = client.post("/security/login", json=login).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        for path, field in (("/assets/import/", "bundle"), ("/dashboard/import/", "formData")):
            given = {"passwords": json.dumps({"databases/notif.yaml": "any"}), "overwrite": "true"}
            answer = client.post(path, data=given, files={field: ("superset.zip", kit.read_bytes())})
            assert answer.is_success, answer.text
        for kind, count in (("dashboard", 3), ("chart", 15), ("dataset", 10)):
            there = client.get(f"/{kind}/").raise_for_status().json()["count"]
            print(f"{there} {kind}s", flush=True)
            assert there == count, kind


def _charts_of(address: str) -> Charts:
    """Opens each dashboard, keeps a picture of it in docs/, and gives the rows that Superset gave its charts."""
    charts: dict[str, list[dict[str, Any]]] = {}

    def note(answer: Response) -> None:
        if "/api/v1/chart/data" in answer.url:
            asked = json.loads(answer.request.post_data or "{}")["form_data"]
            if "slice_id" in asked:
                assert answer.ok, f"{asked['slice_id']}: {answer.text()}"
                charts[names[asked["slice_id"]]] = answer.json()["result"][0]["data"]

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(_PATIENCE * 1000)
        page.goto(f"{address}/login/")
        page.fill("#username", _USER)
        page.fill("#password", _PASSWORD)
        page.press("#password", "Enter")
        page.wait_for_url("**/welcome/**")
        found = page.request.get(f"{address}/api/v1/chart/?q=(page_size:100)").json()["result"]
        names = {chart["id"]: chart["slice_name"] for chart in found}
        page.on("response", note)
        for slug in _DASHBOARDS:
            _visit(page, f"{address}/superset/dashboard/{slug}/?standalone=1")
            page.screenshot(path=ROOT / "docs" / f"superset-{slug}.png")
        browser.close()
    return charts


def _visit(page: Page, address: str) -> None:
    """Until every chart is drawn."""
    page.goto(address)
    page.wait_for_selector(".dashboard-component-chart-holder")
    page.wait_for_load_state("networkidle")
    page.wait_for_function("!document.querySelector('.loading, [aria-label=Loading]')")


def _compared(deployment: Deployment, charts: Charts) -> int:
    """Says of each chart whether its sum is the lake's; 1 if one is not."""
    wrong = 0
    for name, (column, query) in _TRUTH.items():
        rows = charts.get(name, [])
        shown = sum((_number(row, column) for row in rows), Decimal(0))
        true = Decimal(str(_asked(deployment, query)))
        wrong += shown != true
        print(f"{name:<36}{shown:>14}{true:>14}  {'ok' if shown == true else 'WRONG'}", flush=True)
    for name in charts.keys() - _TRUTH.keys():
        print(f"{name:<36}{len(charts[name]):>9} rows", flush=True)
    return 1 if wrong else 0


def _number(row: dict[str, Any], column: str | None) -> Decimal:
    """What a row has in the column; None means in all columns but the time, one for each group of the chart."""
    values = [row.get(column)] if column else [value for name, value in row.items() if name not in _TIMES]
    return sum((Decimal(str(value)) for value in values if value is not None), Decimal(0))


def _asked(deployment: Deployment, query: str) -> Any:
    """One value, from the lake's own files."""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for name in ("customer_panel", "minute_aggregates", "daily_billing", "billing_adjustments", "billing_days"):
            connection.register(name, deployment.lake.rows(deployment.lake.table(name).scan()))
        (value,) = connection.execute(query).fetchone() or (None,)
    return value or 0


_MONTH = "date_trunc('month', billing_date) = date_trunc('month', current_date)"
_BILLS = (
    f"(select notifications, amount from daily_billing where {_MONTH} union all "
    f"select notifications_delta, amount_delta from billing_adjustments where {_MONTH})"
)
_TIMES = {"created_at_local", "minute_local"}
_TRUTH: dict[str, tuple[str | None, str]] = {
    "Notificações de hoje": ("notificacoes_de_hoje", "select sum(notifications) from customer_panel"),
    "Hoje por canal": ("notificacoes_de_hoje", "select sum(notifications) from customer_panel"),
    "Clientes hoje": ("notifications", "select sum(notifications) from customer_panel"),
    "Valor cobrado": ("valor_cobrado", f"select sum(amount) from {_BILLS}"),
    "Notificações cobradas": ("notificacoes_cobradas", f"select sum(notifications) from {_BILLS}"),
    "Valor por moeda": ("valor_cobrado", f"select sum(amount) from {_BILLS}"),
    "Valor por cliente": ("valor_cobrado", f"select sum(amount) from {_BILLS}"),
    "Valor por dia": ("BRL", f"select sum(amount) from {_BILLS}"),
    "Ajustes": ("valor_dos_ajustes", f"select sum(amount_delta) from billing_adjustments where {_MONTH}"),
    "Dias fechados": ("amount", f"select sum(amount) from billing_days where {_MONTH}"),
    "Linhas abertas e finais por dia": (
        "notificacoes_nas_linhas",
        "select sum(notifications) from daily_billing where billing_date >= current_date - 1",
    ),
    "Notificações por minuto": (
        "notificacoes",
        "select sum(notifications) from minute_aggregates where minute::date >= current_date - 1",
    ),
    "Notificações por hora": (
        None,
        "select sum(notifications) from minute_aggregates where minute::date >= current_date - 7",
    ),
    "Correções por motivo": (
        None,
        "select count(*) from billing_adjustments where created_at::date >= current_date - 1",
    ),
}
"""What a chart's column must come to, computed from the lake."""


if __name__ == "__main__":
    sys.exit(main())
