"""The tests of the conductor once more, with Dagster's runs in PostgreSQL by deploy/dagster.postgres.yaml."""

from collections.abc import Iterator

import dagster as dg
import pytest
import yaml

from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.instance import test_conductor as on_files
from notif_assets_tests.instance.conductor import Conductor
from notif_assets_tests.instance.on_postgres import EXAMPLE, on_postgres
from notif_assets_tests.postgres import a_server

pytestmark = on_files.pytestmark
webhook = on_files.webhook
globals().update({name: test for name, test in vars(on_files).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def conductor(
    deploy: Deploy, webhook: on_files.Webhook, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Conductor]:
    tmp = tmp_path_factory.mktemp("postgres")
    with a_server() as server:
        settings = on_postgres(tmp / "home", server.create_database("dagster"))
        with on_files.conducted_impatiently(deploy, webhook, **settings) as it:
            yield it


def test_runs_are_in_postgresql_and_nowhere_else(conductor: Conductor) -> None:
    assert "Postgres" in type(conductor.instance.run_storage).__name__
    assert conductor.runs("micro_batch", dg.DagsterRunStatus.SUCCESS)
    history = conductor.deployment.home / "dagster" / "history"
    assert not history.exists()


def test_but_for_the_storage_it_is_the_repository_s_own() -> None:
    files, database = (yaml.safe_load(path.read_text()) for path in (ROOT / "dagster.yaml", EXAMPLE))
    assert files.pop("storage") != database.pop("storage")
    assert files == database
