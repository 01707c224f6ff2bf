"""The copy as Dagster keeps it: its assets, sensor and check, beside an ingestion that nothing of it stops."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from notif_assets.definitions import build_definitions
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import ok, refusal
from notif_assets_tests.conftest import Deploy, MakeDaemon
from notif_assets_tests.faults.truth import Truth
from notif_assets_tests.postgres import Server, ask
from notif_assets_tests.serving.test_setup import run
from notif_assets_tests.serving.truth import NAMES, assert_equal
from notif_assets_tests.streams import sent


def test_without_an_address_there_is_no_copy_and_nothing_of_psycopg() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from notif_assets.definitions import build_definitions\n"
        "from notif_assets.settings import Settings\n"
        "print([s.key.to_user_string() for s in build_definitions(Settings()).resolve_all_asset_specs()"
        " if s.group_name == 'serving'])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    definitions = build_definitions(Settings())
    assert not [sensor.name for sensor in definitions.sensors or () if "serving" in sensor.name]
    assert not [job.name for job in definitions.jobs or () if "serving" in job.name]


@pytest.mark.parametrize("with_chatbot", [False, True])
def test_each_table_of_the_copy_is_an_asset_that_stands_on_the_lake_s(with_chatbot: bool) -> None:
    settings = Settings(serving_url=SecretStr("postgresql://u:hunter2@h/d"), serving_chatbot=with_chatbot)
    specs = {s.key.to_user_string(): s for s in build_definitions(settings).resolve_all_asset_specs()}
    copies = {name: spec for name, spec in specs.items() if spec.group_name == "serving"}
    expected = set(NAMES) if with_chatbot else set(NAMES) - {"chatbot_reports"}
    assert copies.keys() == {f"serving/{name}" for name in expected}
    for name, spec in copies.items():
        assert [dep.asset_key.to_user_string() for dep in spec.deps] == [name.removeprefix("serving/")]
        assert spec.kinds == {"postgres"}
        assert "hunter2" not in json.dumps({key: str(value) for key, value in spec.metadata.items()})


def test_the_copy_follows_by_itself_and_its_check_holds_it(make_daemon: MakeDaemon, database: str) -> None:
    daemon = make_daemon(serving_url=SecretStr(database))
    assert daemon.skips("serving_copy") == "nothing was ingested yet"
    daemon.topic.produce(sent(datetime.now(UTC)))
    daemon.ingest()
    assert daemon.run("serving_job", daemon.requests("serving_copy")[0]).success
    assert_equal(database, daemon.settings)
    assert daemon.skips("serving_copy") == "the copy is where the lake is"
    daemon.topic.produce(sent(datetime.now(UTC), message_id="another"))
    daemon.ingest()
    result = daemon.run("serving_job", daemon.requests("serving_copy")[0])
    made = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key}
    assert made == {"serving/minute_aggregates", "serving/customer_panel"}
    checked = daemon.run("serving_checks_job")
    verdicts = {c.asset_key.to_user_string(): c.passed for c in checked.get_asset_check_evaluations()}
    assert verdicts == {f"serving/{name}": True for name in NAMES if name != "chatbot_reports"}
    run(database, "update serving.minute_aggregates set notifications = 7")
    failed = [
        c.asset_key.path[-1] for c in daemon.run("serving_checks_job").get_asset_check_evaluations() if not c.passed
    ]
    assert failed == ["minute_aggregates"]


def test_a_table_that_is_refused_does_not_hold_up_the_others(make_daemon: MakeDaemon, database: str) -> None:
    daemon = make_daemon(serving_url=SecretStr(database))
    daemon.topic.produce(sent(datetime.now(UTC)))
    daemon.ingest()
    assert daemon.run("serving_job").success
    run(database, "delete from serving.minute_aggregates")
    daemon.topic.produce(sent(datetime.now(UTC), message_id="another"))
    daemon.ingest()
    result = daemon.run("serving_job")
    assert not result.success
    made = [e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key]
    assert made == ["serving/customer_panel"]
    assert "changed by hand" in daemon.skips("serving_copy")


def test_a_server_that_is_away_stops_nothing_and_is_caught_up_with(make_daemon: MakeDaemon, own_server: Server) -> None:
    url = own_server.create_database("copy")
    daemon = make_daemon(serving_url=SecretStr(url))
    daemon.topic.produce(sent(datetime.now(UTC)))
    assert daemon.run("micro_batch").success
    assert daemon.run("serving_job").success
    own_server.stop()
    for number in range(3):
        daemon.topic.produce(sent(datetime.now(UTC), message_id=str(number)))
        assert daemon.run("micro_batch").success
    assert not daemon.run("serving_job", daemon.requests("serving_copy")[0]).success
    assert "can't be reached" in daemon.skips("serving_copy")
    daemon.tick("failures")
    assert "serving_job" in str(daemon.cursors["failures"])
    assert "can't be reached" in daemon.skips("serving_copy"), "no second run fails"
    own_server.start()
    request = daemon.requests("serving_copy")[0]  # at once: the first failure is seconds old
    assert daemon.run("serving_job", request).success
    assert daemon.skips("serving_copy") == "the copy is where the lake is"
    assert_equal(url, daemon.settings)
    assert ask(url, "select sum(notifications) from bi.minute_aggregates") == [(4,)]
    daemon.tick("failures")
    assert "serving_job" not in str(daemon.cursors["failures"])


def test_a_server_that_comes_back_to_what_it_has_makes_the_job_good_again(
    make_daemon: MakeDaemon, own_server: Server
) -> None:
    daemon = make_daemon(serving_url=SecretStr(own_server.create_database("copy")))
    daemon.topic.produce(sent(datetime.now(UTC)))
    daemon.ingest()
    assert daemon.run("serving_job").success
    own_server.stop()
    assert not daemon.run("serving_job", daemon.requests("serving_copy")[0]).success
    own_server.start()
    assert daemon.run("serving_job", daemon.requests("serving_copy")[0]).success
    assert daemon.skips("serving_copy") == "the copy is where the lake is"


def test_the_command_says_what_it_copied_and_what_is_wrong(deploy: Deploy, database: str) -> None:
    deployment, truth = deploy(2), Truth()
    assert "there is no lake" in refusal(deployment.call("serve", NOTIF_SERVING_URL=database))
    truth.send(deployment, 1, 200, datetime.now(UTC))
    ok(deployment.call("ingest", "--until-caught-up"))
    before = deployment.files()
    assert "NOTIF_SERVING_URL is not set" in refusal(deployment.call("serve"))
    line = refusal(deployment.call("serve", NOTIF_SERVING_URL="postgresql://u:hunter2@127.0.0.1:1/x"))
    assert "can't be reached" in line
    assert "hunter2" not in line
    assert "postgresql://" in refusal(deployment.call("serve", NOTIF_SERVING_URL="http://h"))
    minutes = len(deployment.rows("minute_aggregates"))
    first = ok(deployment.run("serve", NOTIF_SERVING_URL=database)).text
    assert f"minute_aggregates: version 1, {minutes} rows came, 0 went" in first
    assert ok(deployment.call("serve", NOTIF_SERVING_URL=database)).text == "the copy is where the lake is\n"
    again = ok(deployment.call("serve", "--rebuild", NOTIF_SERVING_URL=database)).text
    assert f"minute_aggregates: version 1, {minutes} rows came, {minutes} went" in again
    assert deployment.files() == before, "nothing in the lake changes from here"
    settings = Settings(data=Path(deployment.home) / "data")
    assert_equal(database, settings)
