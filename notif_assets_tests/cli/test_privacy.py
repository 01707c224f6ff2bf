"""No payload, key or value leaves the tables: not on standard error, not into anything that Dagster keeps.

Belongs here: recognisable texts sent through every command, then looked for in every byte of Dagster's storage.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from notif_assets.sandbox.traffic import Message
from notif_assets_tests.cli.deployment import Deployment
from notif_assets_tests.cli.messages import notification
from notif_assets_tests.conftest import Deploy

SECRET = "segredo-3f9a"
NOON = datetime(2020, 2, 3, 12, tzinfo=UTC)


def _messages() -> list[Message]:
    good = notification(NOON, "1", payload=f"payload {SECRET}")
    assert good.value is not None
    return [
        good,
        good,
        notification(NOON, "1", payload=f"conflict {SECRET}"),
        good._replace(value=good.value[:-9]),
        good._replace(value=f'"{SECRET}"'.encode()),
        good._replace(value=SECRET.encode() + b"\xff"),
        notification(NOON, "2", customer_name=[SECRET]),
        notification(NOON, "3", event_datetime=SECRET),
        notification(NOON, "4", channel=""),
        good._replace(value=json.dumps({SECRET: SECRET}).encode()),
    ]


def _holding(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_nothing_personal_reaches_logs_or_run_storage(deploy: Deploy) -> None:
    deployment = deploy(2)
    deployment.send(_messages())
    record = {"customer": "C1", "flow": "F1", "session": "S1", "timestamp": "2019-12-16T13:00:00+00:00"}
    answers = [
        {**record, "content": {"name": SECRET, SECRET: 7, "half": f"\ud800{SECRET}"}},
        {**record, "timestamp": SECRET, "content": {"name": SECRET}},
        SECRET,
    ]
    (deployment.home / "hour=13.json").write_text(json.dumps(answers))
    (deployment.home / "hour=14.json").write_text(f'[{{"content": "{SECRET}" "{SECRET}"}}]')
    prices = f"customer_id,channel,unit_price,currency,valid_from,valid_to\n,Whatsapp,{SECRET},BRL,,\n"
    (deployment.home / "prices.csv").write_text(prices)
    (deployment.home / "invoices.csv").write_text(f"customer,account,month,invoice\nC1,A1,{SECRET},{SECRET}\n")
    said = [
        deployment.run("ingest", "--until-caught-up"),
        deployment.run("check"),
        deployment.run("close-day", "2020-02-03"),
        deployment.run("readmit", "--reason", "not_json"),
        deployment.run("import-answers", "--date", "2019-12-16", "hour=13.json"),
        deployment.run("import-answers", "--date", "2019-12-16", "hour=14.json"),
        deployment.run("import-prices", "prices.csv"),
        deployment.run("import-invoices", "invoices.csv"),
    ]
    assert [answer.code for answer in said] == [0, 0, 0, 0, 1, 1, 1, 1]
    for answer in said:
        assert SECRET not in answer.err
        assert SECRET not in answer.text
    assert SECRET in str(deployment.rows("notifications"))
    store = deployment.home / "dagster"
    assert _holding(store, "every_offset_once")  # the looking works
    assert _holding(store, SECRET) == []
    # Not in the Delta logs either, where statistics would keep texts in the clear.
    assert [name for name in _holding(deployment.lake.root, SECRET) if name.endswith(".json")] == []


def test_a_failing_step_tells_no_value(deploy: Deploy) -> None:
    deployment: Deployment = deploy(1)
    deployment.send(_messages())
    (deployment.home / "data" / "lake" / "notifications").mkdir(parents=True)
    (deployment.home / "data" / "lake" / "notifications" / "_delta_log").write_text("no folder")
    answer = deployment.run("ingest")
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert SECRET not in answer.err
    assert _holding(deployment.home / "dagster", SECRET) == []
