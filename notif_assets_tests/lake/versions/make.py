"""A small lake with a bit of everything, as this version of the project writes it: kept here for later versions.

Belongs here: what such a lake goes through, and the archive of it. Doesn't: what later versions must make of it
(../test_versions.py).

Run it from a version's own code: `python -m notif_assets_tests.lake.versions.make NAME` writes NAME.tar.xz beside this
file: the folder `lake`, and `rows.json`, every row of every table as that version read it.
"""

import json
import lzma
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from notif_assets.lake import SCHEMAS, Lake
from notif_assets.sandbox.broker import EmbeddedBroker
from notif_assets_tests.cli.deployment import Deployment, ended, ok
from notif_assets_tests.cli.messages import ACME, PADARIA, notification

HERE = Path(__file__).parent
TOPIC, PARTITIONS = "notifications", 3
NOON = datetime(2020, 2, 3, 12, tzinfo=UTC)
LIMIT = 2000
"""NOTIF_MAX_MESSAGE_BYTES of the lake."""


def rows(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as text, sorted."""

    def text(value: Any) -> Any:
        return sorted(map(list, value)) if isinstance(value, list) else None if value is None else str(value)

    found = {}
    for name in SCHEMAS:
        of_table = lake.rows(lake.table(name).scan()).to_pylist()
        found[name] = sorted(({c: text(v) for c, v in row.items()} for row in of_table), key=json.dumps)
    return found


def fill(deployment: Deployment) -> None:
    """Messages of two days with a duplicate, a conflict and rejected ones, a price list, a closed day and its
    adjustment, an erased customer, invoices and chatbot answers."""
    minutes = [NOON + timedelta(minutes=n) for n in range(150)]
    customers = [ACME if n % 3 else PADARIA for n in range(150)]
    names = {ACME: "Acme", PADARIA: "Padaria"}
    deployment.send(
        notification(
            at, f"m{n}", customer_id=who, customer_name=names[who], channel="SMS" if n % 5 == 0 else "Whatsapp"
        )
        for n, (at, who) in enumerate(zip(minutes, customers, strict=True))
    )
    deployment.send(
        [
            notification(minutes[1], "m1", customer_name="Acme"),  # again
            notification(minutes[2], "m2", payload="outra"),  # another message of the same name
            notification(NOON, "large", payload="x" * 2 * LIMIT),  # read again below, with a greater limit
            notification(NOON, "too large", payload="x" * 4 * LIMIT),
            notification(NOON - timedelta(days=900), "early", at=NOON),
            notification(NOON, "empty", channel=""),
        ]
    )
    prices = deployment.home / "prices.csv"
    prices.write_text(
        "customer_id,channel,unit_price,currency,valid_from,valid_to\n"
        f",Whatsapp,0.04,BRL,,\n,SMS,0.1,BRL,,\n{PADARIA},SMS,0.05,BRL,,\n"
    )
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("import-prices", prices))
    ok(deployment.call("close-day", "2020-02-03"))
    deployment.send(
        [notification(NOON + timedelta(seconds=n), f"late{n}", at=NOON + timedelta(days=1)) for n in range(7)]
        + [notification(NOON + timedelta(days=1, minutes=n), f"next{n}") for n in range(60)]
    )
    ok(deployment.call("ingest", "--until-caught-up"))
    ok(deployment.call("close-day", "2020-02-03"))
    ok(deployment.call("readmit", "--reason", "oversized", NOTIF_MAX_MESSAGE_BYTES=str(3 * LIMIT)))
    invoices = deployment.home / "invoices.csv"
    months = "".join(f"Acme,conta-1,2019-{month:02}-01,1000.50\n" for month in range(7, 13))
    invoices.write_text("customer,account,month,invoice\n" + months + "Acme,conta-1,2019-13-01,1\n")
    assert ended(deployment.start("import-invoices", invoices)).code == 1  # its last row is set aside
    hour = deployment.home / "hour=13.json"
    hour.write_text(
        json.dumps(
            [
                {
                    "customer": "Acme",
                    "flow": "abc",
                    "session": "1",
                    "timestamp": "2019-12-16T13:59:58+00:00",
                    "content": {"nome": "Ana", "idade": "30"},
                }
            ]
        )
    )
    ok(deployment.call("import-answers", "--date", "2019-12-16", hour))


def main(name: str) -> None:
    """Makes the lake and writes the archive."""
    with (
        tempfile.TemporaryDirectory() as home,
        EmbeddedBroker(topic=TOPIC, partitions=PARTITIONS) as broker,
    ):
        deployment = Deployment(
            Path(home), broker.bootstrap, TOPIC, PARTITIONS, {"NOTIF_MAX_MESSAGE_BYTES": str(LIMIT)}
        )
        fill(deployment)
        content = BytesIO()
        for log in deployment.lake.root.glob("*/_delta_log/*.json"):  # no machine's paths are kept
            log.write_bytes(log.read_bytes().replace(str(deployment.lake.root).encode(), b"/lake"))
        with deployment.lake as lake, tarfile.open(fileobj=content, mode="w") as archive:
            found = rows(lake)
            data = json.dumps(found, ensure_ascii=False, indent=0).encode()
            entry = tarfile.TarInfo("rows.json")
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
            archive.add(lake.root, "lake", filter=_of_nobody)
        (HERE / f"{name}.tar.xz").write_bytes(lzma.compress(content.getvalue(), preset=9))
    for table, of_table in found.items():
        print(f"{table}: {len(of_table)}")


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main(sys.argv[1])
