"""A deployment with customers worth looking at, and its panel as a process of its own.

Belongs here: what is in the lake, the process, requests as somebody. Doesn't: what must be answered.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import httpx
import pytest

from notif_assets_tests.cli.deployment import Deployment, a_free_port, killed_at_the_end, ok, until
from notif_assets_tests.cli.messages import ACME, PADARIA, day_of_acme, notification
from notif_assets_tests.conftest import Deploy

HOSTILE = 666
UNKNOWN = 424242
HOSTILE_NAME = "<script>alert('x')</script>\u202egnp\u202c" + "A" * 4000
HOSTILE_CHANNEL = '"><img src=x onerror=alert(1)>'
FORMULA = '=HYPERLINK("http://evil.example","x")'


@dataclass
class Served:
    """The panel of a deployment."""

    deployment: Deployment
    url: str
    pid: int
    _tokens: dict[int | None, str] = field(default_factory=dict)

    def token(self, customer_id: int | None) -> str:
        """A token of a customer, or (None) of an operator."""
        if customer_id not in self._tokens:
            whom = ("--operator",) if customer_id is None else ("--customer", customer_id)
            answer = self.deployment.call("token", *whom)
            assert answer.code == 0, answer
            self._tokens[customer_id] = answer.text.strip()
        return self._tokens[customer_id]

    def forget(self, customer_id: int | None) -> None:
        """Takes a new token the next time: the one before was revoked."""
        self._tokens.pop(customer_id, None)

    def get(self, path: str, customer_id: int | None = ACME, **headers: str) -> httpx.Response:
        """A request as a customer, or (None) as an operator."""
        return self.bare(path, Authorization=f"Bearer {self.token(customer_id)}", **headers)

    def bare(self, path: str, **headers: str) -> httpx.Response:
        """A request of nobody."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        # Without TLS there is nothing to verify, and loading the world's certificates takes longer than the request.
        return httpx.get(self.url + path, headers=named, timeout=60, verify=False)

    def log(self) -> str:
        """What the process wrote."""
        return (self.deployment.home / "panel.log").read_text()


def now() -> datetime:
    """Now, to the millisecond, as messages have it."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="package")
def served(deploy: Deploy) -> Iterator[Served]:
    """The document's day, closed, with a late message; messages of today and yesterday; a hostile customer."""
    deployment = deploy(4, NOTIF_PANEL_EXPORTS="100000")
    ok(deployment.call("import-prices", files("notif_assets") / "samples" / "prices-demo.csv"))
    document = datetime(2020, 2, 3, 14, tzinfo=UTC)
    deployment.send(day_of_acme())
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("close-day", "2020-02-03"))
    deployment.send([notification(document + timedelta(hours=1), "late")])
    today = now()
    for customer_id, name in ((ACME, "Acme"), (PADARIA, "Padaria São João")):
        whose: dict[str, Any] = {"customer_id": customer_id, "customer_name": name}
        deployment.send(
            notification(today - timedelta(minutes=minute), f"{name}-{minute}", channel=channel, **whose)
            for minute in (0, 1, 5, 59, 61, 24 * 60, 24 * 60 + 3, 47 * 60)
            for channel in ("Whatsapp" if minute % 2 else "SMS",)
        )
    hostile: dict[str, Any] = {
        "customer_id": HOSTILE,
        "customer_name": HOSTILE_NAME,
        "channel": HOSTILE_CHANNEL,
        "payload": FORMULA,
    }
    deployment.send([notification(today, "<b>id</b>", **hostile)])
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("close-day", "2020-02-03"))
    port = a_free_port()
    with (deployment.home / "panel.log").open("wb") as log:
        process = deployment.start_python("panel", "--port", port, output=log)
        with killed_at_the_end(process):
            served = Served(deployment, f"http://127.0.0.1:{port}", process.pid)
            until(lambda: _answers(served) or process.poll() is not None, "the start of the panel", 60)
            yield served
            process.terminate()
            assert process.wait(20) in (0, -15), served.log()


def _answers(served: Served) -> bool:
    try:
        return served.bare("/healthz").status_code == 200
    except httpx.TransportError:
        return False
