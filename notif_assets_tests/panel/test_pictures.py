"""The pictures of docs/, taken anew where the environment names a folder for them.

Belongs here: which pages they show. Doesn't: what must be on them (test_pages.py).
"""

import os
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import sync_playwright

from notif_assets.panel.app import build_app
from notif_assets.panel.tokens import Keys
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import Deployment, a_free_port, ok, until
from notif_assets_tests.cli.messages import ACME
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.panel.business import Business

_SCREENSHOTS = os.environ.get("NOTIF_SCREENSHOTS")
_WIDE: Any = {"viewport": {"width": 1280, "height": 900}}
_PHONE: Any = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
_PICTURES: Any = (
    ("panel-customer", ACME, f"/clientes/{ACME}?periodo=mes", _WIDE),
    ("panel-dark", ACME, f"/clientes/{ACME}", {**_WIDE, "color_scheme": "dark"}),
    ("panel-phone", ACME, f"/clientes/{ACME}?periodo=semana", _PHONE),
    ("panel-operator", None, "/operador?periodo=semana", _WIDE),
)


@pytest.fixture
def business(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of five months up to now, with a run in Dagster."""
    if _SCREENSHOTS is None:
        pytest.skip("takes pictures where NOTIF_SCREENSHOTS names a folder")
    deployment: Deployment = deploy(1)
    settings = Settings(data=deployment.home / "data", panel_key="k" * 32, topic=deployment.topic)
    Business(datetime.now(UTC), days=150, minutes_of_days=4, customers=24).write(settings)
    ok(deployment.call("import-prices", files("notif_assets") / "samples" / "prices-demo.csv"))
    for name in ("DAGSTER_HOME", "DAGSTER_STORE"):
        monkeypatch.setenv(name, deployment.environment()[name])
    return settings


@pytest.fixture
def served(business: Settings) -> Iterator[str]:
    """Where its panel answers."""
    port = a_free_port()
    server = uvicorn.Server(uvicorn.Config(build_app(business), "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "the start of the panel", 60)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def test_the_pictures_are_taken(served: str, business: Settings) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, whom, address, options in _PICTURES:
            page = browser.new_context(locale="pt-BR", **options).new_page()
            page.goto(f"{served}/entrar?t={Keys.of(business).mint(whom, timedelta(hours=1))}")
            page.goto(served + address)
            page.wait_for_load_state("networkidle")
            if whom and not name.endswith("phone"):
                page.locator(".bar:has(.c0)").nth(5).hover()
            page.screenshot(path=Path(str(_SCREENSHOTS)) / f"{name}.png", full_page=True)
        browser.close()
