"""`status`: what it says of a deployment at each point of its way, and that it only looks.

Belongs here: its lines, against what is known of the deployment. Doesn't: a Dagster that runs (test_fresh_clone.py).
"""

import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from notif_assets_tests.cli.deployment import Deployment, ok
from notif_assets_tests.cli.messages import notification
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.postgres import a_server


def said(deployment: Deployment, **changes: str) -> dict[str, str]:
    """Its lines by name; the steps are joined."""
    before = deployment.files()
    lines = ok(deployment.call("status", NOTIF_DAGSTER_URL="http://127.0.0.1:1", **changes)).text.splitlines()
    assert deployment.files() == before
    assert len(lines) < 24
    told: dict[str, str] = {}
    name = ""
    for line in lines:
        name = line[:11].strip() or name
        told[name] = f"{told[name]}; {line[11:]}" if name in told else line[11:]
    return told


def test_the_whole_way(deploy: Deploy) -> None:
    deployment = deploy(3)
    told = said(deployment)
    assert list(told) == ["lake", "topic", "lag now", "counted", "open days", "prices", "Dagster", "next"]
    assert told["lake"] == f"none yet at {deployment.lake.root}"
    assert told["topic"] == f"{deployment.topic} at {deployment.bootstrap}"
    assert (told["lag now"], told["counted"]) == ("0 messages", "nothing is complete yet")

    now = datetime.now(UTC)
    minute = (now - timedelta(days=3)).replace(second=0, microsecond=0)
    deployment.send(notification(minute + timedelta(seconds=5), f"{n}", channel="Fax") for n in range(7))
    told = said(deployment)
    assert told["lag now"] == "7 messages"
    assert told["next"].startswith("notif-assets ingest --until-caught-up; make ui")

    ok(deployment.call("ingest", "--until-caught-up"))
    told = said(deployment)
    assert told["lake"] == f"{deployment.lake.root}: 7 notifications, 0 rejected"
    assert told["lag now"] == "0 messages"
    day, today = (str((now - timedelta(days=back)).date()) for back in (3, 0))
    assert re.fullmatch(
        rf"everything up to {today}T\S+Z, \d+ s ago; newest minute with messages {minute:%Y-%m-%dT%H:%M:00Z}",
        told["counted"],
    )
    assert re.match(rf"[23] may close once they have prices \({day} to \S+\); ", told["open days"])
    assert f"{today} closes after " in told["open days"]
    assert told["prices"] == "missing for Fax (1 days)"
    assert told["next"].startswith(f"notif-assets import-prices FILE; notif-assets close-day {day} --to ")

    deployment.send([notification(now, "late", channel="Whatsapp")])
    assert said(deployment)["lag now"] == "1 messages"
    away = said(deployment, NOTIF_KAFKA_BOOTSTRAP="127.0.0.1:1", NOTIF_KAFKA_TIMEOUT="1")
    assert away["lag now"].startswith("unknown: no Kafka broker answers at 127.0.0.1:1")
    assert away["lake"].endswith("7 notifications, 0 rejected")


def test_its_steps_lead_to_nothing_to_do(deploy: Deploy) -> None:
    deployment = deploy(1)
    deployment.send([notification(datetime.now(UTC) - timedelta(days=2), "1", channel="SMS")])
    ok(deployment.call("ingest", "--until-caught-up"))
    prices = str(files("notif_assets") / "samples" / "prices-demo.csv")
    for _ in range(5):
        step = said(deployment)["next"].split("; ")[0]
        if step.startswith("make ui"):
            break
        assert deployment.call(*step.removeprefix("notif-assets ").replace("FILE", prices).split()).code == 0, step
    told = said(deployment)
    assert told["next"].startswith("make ui")
    assert told["prices"] == "none is missing for the open days"
    assert "may close" not in told["open days"]


def test_another_topic_is_not_a_lag(deploy: Deploy) -> None:
    deployment, other = deploy(1), deploy(1)
    deployment.send(notification(datetime.now(UTC), f"{n}") for n in range(5))
    ok(deployment.call("ingest", "--until-caught-up"))
    assert said(deployment, NOTIF_TOPIC=other.topic)["lag now"].startswith("unknown: Kafka holds less than was taken")


def test_a_serving_copy_has_its_line(deploy: Deploy) -> None:
    deployment = deploy(1)
    away = said(deployment, NOTIF_SERVING_URL="postgresql://copy:secret-word@127.0.0.1:1/serving")["copy"]
    assert away.startswith("unknown: ")
    assert "secret-word" not in away
    with a_server() as server:
        deployment.settings["NOTIF_SERVING_URL"] = server.new_database()
        assert "notif-assets serve" in said(deployment)["copy"]
        deployment.send([notification(datetime.now(UTC), "1", channel="SMS")])
        ok(deployment.call("ingest", "--until-caught-up"))
        ok(deployment.call("serve"))
        assert re.fullmatch(r"everything up to \S+Z, \d+ s ago", said(deployment)["copy"])
