"""What assets and sensors are given, and what Dagster shows and keeps of it.

Belongs here: resources as the Resources page has them, no secret among them, what a run may change. Doesn't: what the
lake and the clients of Kafka do (lake/, kafka/).
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
from pydantic import SecretStr

from notif_assets.definitions import build_definitions
from notif_assets.defs.resources import resources_of
from notif_assets.lake import Lake
from notif_assets.notifications.bronze import advance_bronze
from notif_assets.settings import Settings
from notif_assets_tests.conftest import MakeDaemon

SECRET = "Zq7-never-to-be-seen"
PROPERTIES = {
    "security.protocol": "SASL_SSL",
    "ssl.ca.location": "/etc/kafka/ca.pem",
    "sasl.username": SECRET + "-user",
    "sasl.password": SECRET,
    "sasl_plain_password": SECRET,
    "ssl.key.pem": f"-----BEGIN PRIVATE KEY-----{SECRET}",
}
SECRETS: dict[str, Any] = {
    "kafka_properties": PROPERTIES,
    "webhook": f"https://hooks.example/{SECRET}",
    "alert_urls": f"json://127.0.0.1:1/{SECRET}",
    "serving_url": f"postgresql://me:{SECRET}@127.0.0.1:1/copy",
    "panel_key": SECRET * 2,
    "panel_old_key": SECRET * 3,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, kafka_bootstrap="10.0.0.1:9093", topic="sold", **SECRETS)


def snapshot_of(settings: Settings) -> RepositorySnap:
    return RepositorySnap.from_def(build_definitions(settings).get_repository_def())


def test_every_setting_that_may_be_a_secret_is_one_of_these() -> None:
    secret = {name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)}
    assert secret == SECRETS.keys()


def test_every_resource_and_every_field_of_one_says_what_it_is(settings: Settings) -> None:
    for resource in snapshot_of(settings).resources or ():
        assert resource.resource_snapshot.description, resource.name
        assert all(field.description for field in resource.config_field_snaps), resource.name
        assert resource.name == "advance_bronze" or resource.configured_values, resource.name


def test_every_field_that_the_launchpad_asks_for_says_what_it_is() -> None:
    configs = {
        kind.__name__: kind for kind in dg.Config.__subclasses__() if kind.__module__.startswith("notif_assets.")
    }
    assert {"PriceFile", "Billing", "RecountScope", "InvoiceFiles", "AnswerFiles"} <= configs.keys()
    fields = {
        f"{name}.{field}": info.description for name, of in configs.items() for field, info in of.model_fields.items()
    }
    assert [name for name, description in fields.items() if not description] == []


def test_the_page_shows_what_is_in_use_and_stars_for_what_may_be_secret(settings: Settings) -> None:
    shown = {resource.name: resource for resource in snapshot_of(settings).resources or ()}
    values = {
        name: {field: json.loads(str(text)) for field, text in resource.configured_values.items()}
        for name, resource in shown.items()
    }
    stars = "**********"
    assert values["kafka"] | {"properties": None} == {
        "bootstrap": "10.0.0.1:9093",
        "topic": "sold",
        "client": "auto",
        "timeout": 30.0,
        "properties": None,
    }
    assert values["impatient_kafka"]["timeout"] == 3.0
    assert values["kafka"]["properties"] == {
        name: PROPERTIES[name] if name in ("security.protocol", "ssl.ca.location") else stars for name in PROPERTIES
    }
    assert values["lake"] == {"root": str(settings.lake)}
    assert values["duckdb"]["connection_config"]["memory_limit"] == "1GB"
    assert values["settings"]["values"].items() >= {
        "NOTIF_GRACE": "1h", "NOTIF_RUN_EVERY": "12s", "NOTIF_MAX_EVENT_AGE": "400d", "NOTIF_WEBHOOK": stars,
        "NOTIF_PANEL_KEY": stars, "NOTIF_TOPIC": "sold",
    }.items()  # fmt: skip
    assert {use.name for use in shown["lake"].nested_resources.values()} == {"duckdb"}
    assert len(shown["lake"].asset_keys_using) >= 14
    assert set(shown["lake"].sensors_using) == {"late_messages", "new_messages", "serving_copy"}


def test_no_secret_is_in_what_a_code_server_tells(settings: Settings) -> None:
    """The webserver and the daemon know of a deployment what this snapshot and those of its jobs say."""
    repository = build_definitions(settings).get_repository_def()
    told = [serialize_value(RepositorySnap.from_def(repository))]
    told += [serialize_value(job.get_job_snapshot()) for job in repository.get_all_jobs()]
    assert not any(SECRET in text for text in told)
    assert SECRET not in repr(settings)


def test_no_secret_is_in_what_runs_and_ticks_leave(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(**SECRETS, kafka_bootstrap="127.0.0.1:1", kafka_timeout=1.0)
    daemon.definitions = build_definitions(daemon.settings)
    daemon.repository = daemon.definitions.get_repository_def()
    assert not daemon.run("micro_batch").success
    assert daemon.run("all_checks").success
    assert "kafka" in daemon.skips("new_messages").lower()
    left = [path.read_bytes() for path in daemon.store.rglob("*") if path.is_file()]
    assert any(b"micro_batch" in content for content in left)
    assert not any(SECRET.encode() in content for content in left)


def test_the_client_gets_the_secrets_and_a_run_may_read_from_elsewhere(settings: Settings) -> None:
    resources = resources_of(settings, advance_bronze)
    with dg.build_resources(resources) as given:
        assert given.kafka.args[0] == settings
        assert given.impatient_kafka.args[0] == settings.model_copy(update={"kafka_timeout": 3.0})
        assert given.settings == settings
    here = {"bootstrap": "10.0.0.2:9", "topic": "sold", "client": "auto", "timeout": 1.0}
    config = {"kafka": {"config": here | {"properties": {"sasl.password": "**********"}}}}
    with dg.build_resources(resources, resource_config=config) as given:
        used = given.kafka.args[0]
        assert used.kafka_bootstrap == "10.0.0.2:9"
        assert used.kafka_properties["sasl.password"] == SecretStr(SECRET)


def test_a_process_keeps_its_lake_from_tick_to_tick(settings: Settings, tmp_path: Path) -> None:
    opened: list[Lake] = []
    for _ in range(2):
        with dg.build_resources(resources_of(settings, advance_bronze)) as given:
            opened.append(given.lake)
    assert opened[0] is opened[1]
    assert opened[0].root == settings.lake
    other = {"lake": {"config": {"root": str(tmp_path / "other")}}}
    with dg.build_resources(resources_of(settings, advance_bronze), resource_config=other) as given:
        assert given.lake.root == tmp_path / "other"


def test_the_engine_is_the_one_that_is_shown(settings: Settings) -> None:
    changed = settings.model_copy(update={"engine_memory": "64MB"})
    with dg.build_resources(resources_of(changed, advance_bronze)) as given:
        memory = given.lake._connect()
        with memory as connection:
            assert connection.execute("select current_setting('memory_limit')").fetchall() == [("61.0 MiB",)]


def test_a_run_has_no_settings_of_its_own(settings: Settings) -> None:
    config = {"settings": {"config": {"values": {"NOTIF_GRACE": "0s"}}}}
    with (
        pytest.raises(dg.DagsterResourceFunctionError) as caught,
        dg.build_resources(resources_of(settings, advance_bronze), resource_config=config),
    ):
        pass
    assert "a run can't have settings of its own (NOTIF_" in str(caught.value.__cause__)


def test_every_process_knows_the_jobs_by_the_same_names(tmp_path: Path) -> None:
    """Dagster keeps each job that it does not know yet: were it another in each process, its storage would grow."""
    code = (
        "from notif_assets.definitions import build_definitions\n"
        "from notif_assets.settings import Settings\n"
        "for job in build_definitions(Settings()).get_repository_def().get_all_jobs():\n"
        "    print(job.name, job.get_job_snapshot_id())"
    )
    run = partial(subprocess.run, [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True)
    first, second = (run(check=True, text=True).stdout for _ in range(2))
    assert first == second
