"""Corrections: late messages, new prices, rules that change, and what Kafka lost.

Belongs here: commands that correct what was closed, rejected or lost. Doesn't: reports in all their formats.
"""

import csv
import io
import os
import re
import shlex
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from notif_assets.kafka.open import open_client
from notif_assets.sandbox.traffic import Message
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import Deployment, ok, refusal
from notif_assets_tests.cli.messages import ACME, notification
from notif_assets_tests.conftest import Deploy

NOON = datetime(2020, 2, 3, 12, tzinfo=UTC)
BILL = "Relatório de Cobrança\n\nCliente: Acme\nNotificações Whatsapp: 100\nValor: R$ 4,00\n"


def _prices(deployment: Deployment, name: str, *rows: str) -> str:
    (deployment.home / name).write_text(
        "".join(f"{row}\n" for row in ("customer_id,channel,unit_price,currency,valid_from,valid_to", *rows))
    )
    return name


def test_late_messages_and_new_prices_become_adjustments(deploy: Deploy) -> None:
    deployment = deploy(2)

    def bill() -> str:
        return ok(deployment.call("report", "billing", "--date", "2020-02-03")).text

    deployment.send(notification(NOON, f"{n}") for n in range(100))
    ok(deployment.call("ingest", "--until-caught-up"))
    assert bill() == BILL + "Data: 2020-02-03\nSituação: provisória\n"
    assert deployment.rows("daily_billing") == []  # a report writes nothing
    ok(deployment.call("close-day", "2020-02-03"))
    assert bill() == BILL + "Data: 2020-02-03\n"

    deployment.send(notification(NOON, f"late-{n}") for n in range(5))
    deployment.send(notification(NOON, f"{n}") for n in range(5))
    ok(deployment.call("ingest", "--until-caught-up"))
    assert bill() == BILL + "Data: 2020-02-03\n"
    for close in (deployment.run, deployment.call):
        said = ok(close("close-day", "2020-02-03")).text
        assert said == "2020-02-03 closed: 1 lines, 100 notifications, R$ 4,00; 1 adjustments, R$ 0,20\n"
    assert bill() == BILL + "Ajustes: R$ 0,20\nData: 2020-02-03\n"

    dearer = _prices(deployment, "dearer.csv", ",Whatsapp,0.05,BRL,,", ",SMS,0.06,BRL,,")
    said = ok(deployment.run("import-prices", dearer)).text
    assert re.fullmatch(r"price list [0-9a-f]{16} prices open days from now on\n", said)
    assert ok(deployment.call("import-prices", dearer)).text == said
    assert len(deployment.rows("prices")) == 1 + 2
    ok(deployment.call("close-day", "2020-02-03"))
    assert bill() == BILL + "Ajustes: R$ 0,20\nData: 2020-02-03\n"  # a closed day keeps its price
    for reprice in (deployment.run, deployment.call):
        ok(reprice("reprice", "--from", "2020-02-03", "--to", "2020-02-03", "--reason", "contract"))
        assert bill() == BILL + "Ajustes: R$ 1,25\nData: 2020-02-03\n"  # 105 × 0,05 = 5,25
    adjustments = deployment.rows("billing_adjustments")
    assert sorted((row["reason"], row["notifications_delta"], str(row["amount_delta"])) for row in adjustments) == [
        ("late", 5, "0.20"),
        ("repriced", 0, "1.05"),
    ]
    ok(deployment.call("check"))


def test_amounts_of_two_currencies_are_never_one(deploy: Deploy) -> None:
    deployment = deploy(1)
    dollars = _prices(deployment, "dollars.csv", ",Whatsapp,0.10,USD,,")
    deployment.send(notification(NOON, f"{n}") for n in range(5))
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("import-prices", dollars))
    said = ok(deployment.call("close-day", "2020-02-03", "--to", "2020-02-04")).text
    assert said == (
        "2020-02-03 closed: 1 lines, 5 notifications, USD 0,50\n2020-02-04 closed: 0 lines, 0 notifications, USD 0,00\n"
    )
    deployment.send(notification(NOON, f"late-{n}", customer_id=2, customer_name="Beta") for n in range(5))
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("close-day", "2020-02-03"))
    bill = ok(deployment.call("report", "billing", "--date", "2020-02-03")).text
    assert "R$" not in bill
    assert "Cliente: Beta\nNotificações Whatsapp: 0\nValor: USD 0,00\nAjustes: USD 0,50\n" in bill
    ok(deployment.call("import-prices", _prices(deployment, "reais.csv", ",Whatsapp,0.25,BRL,,")))
    reprice = ("reprice", "--from", "2020-02-03", "--to", "2020-02-03", "--reason", "contract")
    assert ok(deployment.call(*reprice)).text == (
        "2020-02-03 closed: 1 lines, 5 notifications, USD 0,50; 5 adjustments, R$ 2,50 and USD -0,50\n"
    )
    printed = ok(deployment.call("report", "billing", "--date", "2020-02-03", "--format", "csv")).text
    sums: dict[tuple[str, str], Decimal] = {}
    for row in csv.DictReader(io.StringIO(printed)):
        key = row["customer_id"], row["currency"]
        sums[key] = sums.get(key, Decimal(0)) + Decimal(row["amount"])
    assert {key: amount for key, amount in sums.items() if amount} == {
        (str(ACME), "BRL"): Decimal("1.25"),
        ("2", "BRL"): Decimal("1.25"),
    }
    ok(deployment.call("check"))


def test_a_day_that_goes_on_does_not_close(deploy: Deploy) -> None:
    deployment = deploy(1)
    now = datetime.now(UTC)
    deployment.send([notification(now, "1")])
    ok(deployment.call("ingest"))
    answer = deployment.run("close-day", now.date())
    end = f"{now.date() + timedelta(days=1)}T01:00:00+0000"
    line = refusal(answer)
    assert f"{now.date()} can't close yet: all messages are counted up to " in line
    assert f"must be so past {end} (the day's end plus NOTIF_GRACE)" in line
    assert answer.code == 1
    for arguments in (
        ["close-day", "2014-12-31"],
        ["close-day", "2020-02-03", "--to", "2020-02-02"],
        ["close-day", now.date() + timedelta(days=30)],
        ["reprice", "--from", "2020-02-03", "--to", "2020-02-03", "--reason", "x"],
    ):
        answer = deployment.call(*arguments)
        assert refusal(answer)
        assert answer.code == 1
    assert deployment.rows("daily_billing") == deployment.rows("billing_days") == []
    assert deployment.table("ingest_batches")[0] == 1  # not even a batch was planned


def test_a_channel_without_a_price_or_with_two_blocks_the_close(deploy: Deploy) -> None:
    deployment = deploy(1)
    deployment.send([notification(NOON, "1", channel="Pombo")])
    ok(deployment.call("ingest"))
    line = refusal(deployment.run("close-day", "2020-02-03"))
    assert "channel Pombo has no price in list" in line
    assert f"customer {ACME}" in line
    twice = _prices(deployment, "twice.csv", ",Pombo,1,BRL,,", ",Pombo,2,BRL,2020-01-01,")
    ok(deployment.call("import-prices", twice))
    assert "channel Pombo has 2 prices in list" in refusal(deployment.call("close-day", "2020-02-03"))
    assert deployment.rows("daily_billing") == deployment.rows("billing_days") == []
    ok(deployment.call("import-prices", _prices(deployment, "once.csv", ",Pombo,1.005,BRL,,")))
    said = ok(deployment.call("close-day", "2020-02-03")).text
    assert said == "2020-02-03 closed: 1 lines, 1 notifications, R$ 1,01\n"


def test_a_late_channel_without_a_price_is_named_with_the_command_that_helps(deploy: Deploy) -> None:
    """What has a price is billed; what has none is by the command that the line names."""
    deployment, day = deploy(1), "2020-02-03"
    deployment.send([notification(NOON, "1")])
    ok(deployment.call("ingest"))
    ok(deployment.run("close-day", day))
    deployment.send([notification(NOON, "2"), notification(NOON, "3", channel="Pombo")])
    ok(deployment.call("ingest"))
    line = refusal(deployment.run("close-day", day))
    assert f"{day} is closed, and messages that came late are not billed: channel Pombo has no price in list" in line
    assert len(deployment.rows("billing_adjustments")) == 1
    assert "every_late_message_has_one_price" in deployment.call("check").out.decode()
    ok(deployment.call("import-prices", _prices(deployment, "more.csv", ",Whatsapp,0.04,BRL,,", ",Pombo,1,BRL,,")))
    assert refusal(deployment.call("close-day", day)) == line
    command = re.search("`notif-assets (reprice [^`]*)`", line)
    assert command
    assert "2 adjustments, R$ 1,04" in ok(deployment.call(*shlex.split(command[1]))).text
    ok(deployment.call("close-day", day))
    ok(deployment.call("check"))


def test_a_report_of_an_open_day_has_what_can_be_priced_and_names_the_rest(deploy: Deploy) -> None:
    deployment = deploy(1)
    deployment.send([notification(NOON, "1"), notification(NOON, "2", channel="sms ", customer_id=9)])
    ok(deployment.call("ingest"))
    answer = deployment.run("report", "billing", "--date", "2020-02-03")
    assert "Notificações Whatsapp: 1" in answer.out.decode()
    assert 'the report lacks what has no price: 2020-02-03 can\'t be billed: channel "sms " has' in refusal(answer)
    assert (
        "Notificações Whatsapp: 1"
        in ok(deployment.call("report", "billing", "--date", "2020-02-03", "--customer", ACME)).text
    )


def test_rejected_messages_are_readmitted_after_a_setting_changed(deploy: Deploy) -> None:
    deployment = deploy(2)
    deployment.send(notification(NOON, f"{n}", at=NOON + timedelta(days=500)) for n in range(3))
    deployment.send([notification(NOON, "0", at=NOON)])
    assert ok(deployment.call("ingest")).text.startswith("this run: 1 notifications, 3 rejected; ")
    command = ("readmit", "--reason", "event_too_early")
    assert ok(deployment.call(*command)).text.startswith("0 messages readmitted as batch ")
    said = ok(deployment.run(*command, NOTIF_MAX_EVENT_AGE="800d")).text
    assert re.fullmatch(r"2 messages readmitted as batch \d+; closed days get adjustments with close-day\n", said)
    assert ok(deployment.call(*command, NOTIF_MAX_EVENT_AGE="800d")).text.startswith("0 messages readmitted")
    assert sorted(row["message_id"] for row in deployment.rows("notifications")) == ["0", "1", "2"]
    assert len(deployment.rows("rejected_notifications")) == 1
    ok(deployment.call("check"))


def test_what_kafka_deleted_is_an_error_until_somebody_accepts_it(deploy: Deploy) -> None:
    deployment = deploy(1)
    deployment.send(notification(NOON, f"{n}") for n in range(3))
    ok(deployment.call("ingest"))
    for _ in range(10):  # past what the broker keeps, which it drops batch by batch
        deployment.send([Message(ACME, os.urandom(900_000), 1_580_731_200_000)])
    with open_client(Settings(kafka_bootstrap=deployment.bootstrap, topic=deployment.topic)) as client:
        kept_from = client.offsets().partitions[0].start
    assert kept_from > 3
    for ingest in (deployment.run, deployment.call):
        answer = ingest("ingest", "--until-caught-up")
        line = refusal(answer)
        assert f"(partition 0: offsets 3 to {kept_from - 1})" in line
        assert answer.code == 1
    assert len(deployment.rows("raw_notifications")) == 3
    command = re.search(r"`notif-assets (accept-loss --batch (\d+))`", line)
    assert command

    failed = deployment.call("check")
    assert failed.code == 1
    assert f"offsets 3 to {kept_from - 1} were deleted by Kafka" in failed.text
    batch = int(command[2])
    assert "was never planned" in refusal(deployment.call("accept-loss", "--batch", batch + 1))
    assert "was read, it lost nothing" in refusal(deployment.call("accept-loss", "--batch", 1))
    said = ok(deployment.run("accept-loss", "--batch", batch, "--by", "Ana")).text
    assert said == f"batch {batch}, partition 0: offsets 3 to {kept_from - 1} accepted as lost\n"
    assert "has lost nothing that is not accepted already" in ok(deployment.call("accept-loss", "--batch", batch)).text
    (loss,) = deployment.rows("ingest_losses")
    assert (loss["start_offset"], loss["end_offset"], loss["accepted_by"]) == (3, kept_from, "Ana")

    said = ok(deployment.call("ingest", "--until-caught-up")).text
    assert f"in all: 3 notifications, {13 - kept_from} rejected; " in said
    offsets = sorted(row["kafka_offset"] for row in deployment.rows("raw_notifications"))
    assert offsets == [0, 1, 2, *range(kept_from, 13)]
    ok(deployment.call("check"))
