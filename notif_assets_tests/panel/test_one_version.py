"""All numbers of a page are of one batch, wherever ingestion is while the page is made.

Belongs here: pages between two commits of a batch. Doesn't: what the numbers are (test_numbers.py, test_hours.py).
"""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from notif_assets.kafka.open import open_client
from notif_assets.notifications import bronze, gold, ledger, silver
from notif_assets.panel.app import build_app
from notif_assets.panel.tokens import Keys
from notif_assets.sandbox.traffic import Message
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import Deployment
from notif_assets_tests.cli.messages import ACME, notification
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.panel.conftest import now


class Stepwise:
    """Ingestion of a deployment, a commit at a time, and its panel."""

    def __init__(self, deployment: Deployment, client: TestClient, settings: Settings) -> None:
        self.deployment, self._client, self.settings = deployment, client, settings
        self._keys = Keys.of(settings)

    def send(self, first: int, many: int) -> None:
        """Messages of now, and as many broken ones."""
        moment = now()
        self.deployment.send(notification(moment, f"{n}") for n in range(first, first + many))
        self.deployment.send(Message(ACME, b"broken", int(moment.timestamp() * 1000)) for _ in range(many))

    def up_to_minutes(self) -> None:
        """Takes what was sent, through all tables but customer_panel."""
        lake = self.deployment.lake
        with open_client(self.settings) as kafka:
            assert ledger.plan_from_kafka(lake, kafka, self.settings, "test", even_if_quiet=True)
            bronze.execute_next_batch(lake, kafka)
        list(silver.advance_silver(lake, self.settings))
        assert gold.advance_minutes(lake)

    def to_the_end(self) -> None:
        """Brings customer_panel up to it."""
        gold.advance_panel(self.deployment.lake, self.settings)

    def numbers(self) -> set[int]:
        """Every number of the customer's page and of the operator's that counts today's messages, or broken ones."""
        self._client.app.state.panel.refresh()  # type: ignore[attr-defined]
        found: set[int] = set()
        for path, whom, patterns in (
            (
                f"/clientes/{ACME}",
                ACME,
                (
                    r'id="whatsapp">(\d+)<',
                    r'id="hoje">(\d+)<',
                    r"hora: total (\d+)\"",
                    r'id="uso-total">(\d+)<',
                    r"<p>(\d+) notificações<",
                    r'Notificações">(\d+)<',
                ),
            ),
            (
                "/operador",
                None,
                (
                    r"Notificações hoje</dt><dd>(\d+)<",
                    r"hora: total (\d+)\"",
                    r'not_json</code></th><td class="n">(\d+)<',
                ),
            ),
        ):
            header = {"Authorization": f"Bearer {self._keys.mint(whom, timedelta(hours=1))}"}
            page = self._client.get(path, headers=header)
            assert page.status_code == 200
            for pattern in patterns:
                numbers = re.findall(pattern, page.text)
                assert numbers, (path, pattern)
                found |= {*map(int, numbers)}
        return found


@pytest.fixture
def stepwise(deploy: Deploy) -> Iterator[Stepwise]:
    """Of an empty lake."""
    deployment = deploy(1)
    settings = Settings(
        data=deployment.home / "data",
        kafka_bootstrap=deployment.bootstrap,
        topic=deployment.topic,
        panel_key="k" * 32,
    )
    with TestClient(build_app(settings)) as client:
        yield Stepwise(deployment, client, settings)


def test_while_a_batch_is_on_its_way_pages_show_the_one_before(stepwise: Stepwise) -> None:
    sent = 0
    for many in (3, 4, 5):
        before = sent
        stepwise.send(sent, many)
        sent += many
        stepwise.up_to_minutes()
        if before:
            assert stepwise.numbers() == {before}
        stepwise.to_the_end()
        assert stepwise.numbers() == {sent}
