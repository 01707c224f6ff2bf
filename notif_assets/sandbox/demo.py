"""`make demo`: the whole system on this machine, on the embedded broker with live traffic.

Belongs here: starting and stopping the parts, a line of progress, and the reconciliation of a demo that ends by itself:
the generator's tally against the tables. Doesn't: anything that a deployment
needs; the parts are those of a deployment.

The broker keeps its messages in memory, so every demo begins with an empty lake, in a folder of its own.
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, Any

from notif_assets.billing.prices import price_list, prices_in_force
from notif_assets.core.amounts import sum_by_currency
from notif_assets.core.signals import Signals
from notif_assets.errors import NotifError
from notif_assets.instance.runs import RunFailed, Runs, silence_beta_warnings
from notif_assets.kafka.client import KafkaError
from notif_assets.lake import Lake
from notif_assets.notifications import queries
from notif_assets.notifications.catch_up import committed_ends
from notif_assets.panel.tokens import Keys
from notif_assets.reports.text import amounts
from notif_assets.sandbox.broker import LOOPBACK, BrokerNotStarted, EmbeddedBroker
from notif_assets.sandbox.traffic import ACME, Tally, produce
from notif_assets.settings import Settings

RATE = 1157
"""Messages a second: 100 million a day."""

_ROOT = Path(__file__).resolve().parents[2]
_ENDLESS = timedelta(days=365)
_LINKS_LAST = timedelta(days=1)
_LINE_SECONDS = 10
_START_SECONDS = 180
_CATCH_UP_SECONDS = 240
_STOP_SECONDS = 20
_INTERRUPTED = 130  # as shells have it
_SAMPLES = {
    "invoices.csv": "invoices/invoices.csv",
    "hour=13.json": "chatbot/date=2019-12-16/hour=13.json",
    "hour=14.json": "chatbot/date=2019-12-16/hour=14.json",
}


class DemoFailed(NotifError):
    """The demo can't go on; the message says why and what to do."""


@dataclass(frozen=True)
class _Ports:
    """Of the Dagster UI, the panel and the broker."""

    dagster: int
    panel: int
    kafka: int


@dataclass
class _Traffic:
    """The generator in a thread; `tally` is complete once the thread has ended."""

    settings: Settings
    rate: int
    seconds: float
    ended: threading.Event = field(default_factory=threading.Event)
    produced: int = 0
    tally: Tally | None = None
    problem: str = ""

    def start(self, stop: Signals) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(stop,), name="traffic", daemon=True)
        thread.start()
        return thread

    def _run(self, stop: Signals) -> None:
        try:
            self.tally = produce(self.settings, self.rate, self.seconds, progress=self._progress, stopped=stop.is_set)
            self.produced = self.tally.produced
        except KafkaError as error:
            self.problem = str(error)
        finally:
            self.ended.set()

    def _progress(self, sent: int) -> None:
        self.produced = sent


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; 0 if it ended as asked, and, with --for, only if the reconciliation holds."""
    parser = argparse.ArgumentParser(prog="make demo", description="The whole system on this machine, with traffic.")
    parser.add_argument("--for", dest="seconds", type=float, help="seconds of traffic, then reconcile and end")
    parser.add_argument("--rate", type=int, default=RATE, help="messages a second")
    parser.add_argument("--port", type=int, default=3000, help="port of the Dagster UI")
    parser.add_argument("--panel-port", type=int, default=8000, help="port of the panel")
    parser.add_argument("--kafka-port", type=int, default=9092, help="port of the broker")
    parser.add_argument("--data", type=Path, default=Path("data") / "demo", help="folder, emptied at every start")
    parser.add_argument("--serving-url", help="of a PostgreSQL database that shall hold a serving copy")
    options = parser.parse_args(arguments)
    # Ctrl-C, or SIGTERM: the first ends the demo in order, a second one at once.
    with Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
        try:
            ports = _Ports(options.port, options.panel_port, options.kafka_port)
            copy = {"NOTIF_SERVING_URL": options.serving_url} if options.serving_url else {}
            return _demo(options.seconds, options.rate, ports, options.data.absolute(), copy, stop)
        except KeyboardInterrupt:  # while a run in this process has the signal for itself
            return _INTERRUPTED
        except (DemoFailed, BrokerNotStarted) as failed:
            if stop.is_set():
                return _INTERRUPTED
            print(f"make demo: {failed}", file=sys.stderr)
            return 1


def _demo(seconds: float | None, rate: int, ports: _Ports, data: Path, more: Mapping[str, str], stop: Signals) -> int:
    with ExitStack() as opened:
        opened.enter_context(_exclusive(data))
        _require_free(ports.dagster, "PORT")
        _require_free(ports.panel, "PANEL_PORT")
        _require_free(ports.kafka, "KAFKA_PORT")
        settings = _prepare(data, ports, more)
        broker = opened.enter_context(EmbeddedBroker(ports.kafka, settings.topic))
        _say(f"starting Dagster …  (its log: {data / 'dagster.log'})")
        _load_prices(settings)
        parts = opened.enter_context(_parts(data, ports, stop))
        _wait(lambda: _ingested(settings) is not None, _START_SECONDS, "the first run of the sensor", parts, stop)
        keys = Keys.of(settings)
        for name, customer_id in (("Acme, a customer", ACME), ("the operator", None)):
            _say(f"panel           {settings.panel_url}/entrar?t={keys.mint(customer_id, _LINKS_LAST)}   ({name})")
        _say(f"Dagster UI      {settings.dagster_url}   (assets, runs, checks, sensors and schedules)")
        _say(f"Kafka           {broker.bootstrap}, topic {settings.topic}, {rate} messages a second")
        _say(f"lake            {settings.lake}   (Delta tables: DuckDB, pandas, Spark)")
        _say(f"inbox           {settings.inbox}   (drop invoices/*.csv or chatbot/date=…/hour=….json)")
        _say("Ctrl-C stops all of it\n" if seconds is None else f"ends by itself after {seconds:g} s of traffic\n")
        traffic = _Traffic(settings, rate, seconds or _ENDLESS.total_seconds())
        thread = traffic.start(stop)
        opened.callback(thread.join, _STOP_SECONDS)
        started_on = datetime.now(UTC).date()
        _watch(traffic, settings, parts, stop)
        if traffic.problem:
            raise DemoFailed(traffic.problem)
        if stop.is_set():
            _say("\nstopping …")
            return _INTERRUPTED if seconds else 0
        assert traffic.tally is not None
        produced = traffic.tally.produced
        _say(f"{produced} messages produced; catching up …")
        _wait(lambda: _ingested(settings) == produced, _CATCH_UP_SECONDS, "all messages to be counted", parts, stop)
        _say(_line(produced, settings))
        _wait(lambda: _samples_are_in(settings), _CATCH_UP_SECONDS, "the sample files to be imported", parts, stop)
        days = sorted({started_on, datetime.now(UTC).date()})
        _bill(settings, days)
        return 0 if _reconcile(settings, traffic.tally, days) else 1


# --- the parts --------------------------------------------------------------------------------------------------------


@contextmanager
def _exclusive(data: Path) -> Iterator[None]:
    data.mkdir(parents=True, exist_ok=True)
    with (data.parent / f".{data.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailed(f"another demo runs in {data}: stop it first") from None
        yield


def _require_free(port: int, variable: str) -> None:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((LOOPBACK, port))
        except OSError:
            raise DemoFailed(
                f"port {port} is taken: stop what uses it, or choose another one (`make demo {variable}={port + 1}`)"
            ) from None


def _prepare(data: Path, ports: _Ports, more: Mapping[str, str]) -> Settings:
    """An empty folder with the samples in its inbox; sets this process's environment, which Dagster's inherit.

    The demo ignores the caller's settings but for `more`, their lake and Dagster storage, and changes none of them.
    """
    own_entries = ("lake", "inbox", "reports", "dagster", "dagster.log", "panel.log", "panel.key")
    if any(entry.name not in own_entries for entry in data.iterdir()):
        raise DemoFailed(f"{data} holds something else than a demo: choose another folder")
    for name in own_entries:
        shutil.rmtree(data / name, ignore_errors=True)
    (data / "dagster").mkdir()
    for name in [name for name in os.environ if name.startswith(("NOTIF_", "DAGSTER_"))]:
        del os.environ[name]
    os.environ |= {
        "NOTIF_DATA": str(data),
        "NOTIF_LAKE": str(data / "lake"),
        "NOTIF_INBOX": str(data / "inbox"),
        "NOTIF_REPORTS": str(data / "reports"),
        "NOTIF_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{ports.kafka}",
        "NOTIF_PANEL_URL": f"http://{LOOPBACK}:{ports.panel}",
        "NOTIF_DAGSTER_URL": f"http://{LOOPBACK}:{ports.dagster}",
        "NOTIF_TOPIC": "notifications",
        "NOTIF_TIMEZONE": "UTC",  # the generator counts by UTC date
        "DAGSTER_HOME": str(_ROOT),
        "DAGSTER_STORE": str(data / "dagster"),
        **more,
    }
    for name, folder in _SAMPLES.items():
        target = data / "inbox" / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        with as_file(files("notif_assets") / "samples" / name) as sample:
            shutil.copy(sample, target)
    return Settings()


def _runs(settings: Settings) -> Runs:
    silence_beta_warnings()
    from notif_assets.definitions import build_definitions

    return Runs(settings, build_definitions(settings))


def _load_prices(settings: Settings) -> None:
    with _runs(settings) as runs, as_file(files("notif_assets") / "samples" / "prices-demo.csv") as prices:
        runs.run("prices_job", {"prices": {"file": str(prices)}})


@dataclass(frozen=True)
class _Part:
    """A process of the demo, by the name that people know it by."""

    name: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def _parts(data: Path, ports: _Ports, stop: Signals) -> Iterator[list[_Part]]:
    """`dagster dev` (the UI, the daemon with its sensors and schedules, and the code they load), and the panel."""
    commands = {
        "dagster": ["dagster", "dev", "-w", "workspace.yaml", "--host", LOOPBACK, "--port", str(ports.dagster)],
        "panel": ["notif_assets", "panel", "--port", str(ports.panel)],
    }
    with ExitStack() as opened:
        parts = []
        for name, (module, *arguments) in commands.items():
            log = opened.enter_context((data / f"{name}.log").open("wb"))
            part = _Part(name, _start(["-m", module, *arguments], log))
            opened.callback(_end, part.process, stop)
            parts.append(part)
        yield parts


def _start(command: list[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Starts a process in its own group: Ctrl-C at the terminal reaches only the demo, and children can be found."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and words
        [sys.executable, *command], cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def _end(process: "subprocess.Popen[bytes]", stop: Signals) -> None:
    """Asks the process to end, and then ends everything in its group, whatever is left."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline and stop.count < 2:
            time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(condition: Callable[[], bool], seconds: float, what: str, parts: list[_Part], stop: Signals) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if stop.wait(1):
            raise DemoFailed("stopped")
        _require_alive(parts)
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {seconds:g} s for {what}: see the log of Dagster")


def _require_alive(parts: list[_Part]) -> None:
    for part in parts:
        code = part.process.poll()
        if code is not None:
            raise DemoFailed(f"{part.name} ended by itself (exit code {code}): see {part.name}.log")


# --- what it says -----------------------------------------------------------------------------------------------------


def _watch(traffic: _Traffic, settings: Settings, parts: list[_Part], stop: Signals) -> None:
    """Prints a line every ten seconds, until the traffic ends or is stopped."""
    next_line = time.monotonic() + _LINE_SECONDS
    while not traffic.ended.wait(0.2) and not stop.is_set():
        _require_alive(parts)
        if time.monotonic() >= next_line:
            _say(_line(traffic.produced, settings))
            next_line += _LINE_SECONDS


def _line(produced: int, settings: Settings) -> str:
    ingested = _ingested(settings) or 0
    with Lake(settings.lake) as lake:
        rows = queries.panel(lake, queries.today(settings)).to_pylist()
    by_customer: dict[tuple[int, str], int] = {}
    for row in rows:
        customer = (row["customer_id"], row["customer_name"])
        by_customer[customer] = by_customer.get(customer, 0) + row["notifications"]
    newest = max((row["last_event"] for row in rows if row["last_event"]), default=None)
    (_, name), count = max(by_customer.items(), key=lambda entry: entry[1], default=((0, "nobody"), 0))
    fresh = f"newest counted message {(datetime.now(UTC) - newest).total_seconds():.0f} s ago" if newest else ""
    now = f"{datetime.now():%H:%M:%S}"  # noqa: DTZ005 - for whoever looks at a clock
    return (
        f"{now}  produced {produced}  ingested {ingested}  lag {max(0, produced - ingested)}  "
        f"today {name}: {count}  {fresh}"
    )


def _say(text: str) -> None:
    print(text, flush=True)


# --- what it proves ---------------------------------------------------------------------------------------------------


def _ingested(settings: Settings) -> int | None:
    """Offsets that every table up to the panel holds; None before the first batch."""
    with Lake(settings.lake) as lake:
        if not lake.exists() or not lake.table("customer_panel").watermark:
            return None
        return sum(committed_ends(lake).values())


def _samples_are_in(settings: Settings) -> bool:
    with Lake(settings.lake) as lake:
        return all(lake.table(name).scan().rows_at_most for name in ("invoice_window_averages", "chatbot_reports"))


def _bill(settings: Settings, days: list[date]) -> None:
    from notif_assets.defs.partitions import billing_days, key_ranges

    try:
        with _runs(settings) as runs:
            for some in key_ranges(billing_days, map(str, days)):
                runs.run("daily_billing_job", partitions=some)
    except RunFailed as failed:
        raise DemoFailed(str(failed)) from None


def _reconcile(settings: Settings, tally: Tally, days: list[date]) -> bool:
    """Prints what the generator sent beside what the tables hold; True if all of it is equal."""
    with Lake(settings.lake) as lake:
        counted = lake.select("message_counts", {"notifications": lake.table("notifications").scan()}).to_pylist()
        accepted = {(row["customer_id"], row["channel"]): row["notifications"] for row in counted}
        reasons = Counter(lake.rows(lake.table("rejected_notifications").scan())["reason"].to_pylist())
        bill = [row for row in lake.rows(lake.table("daily_billing").scan()).to_pylist() if row["billing_date"] in days]
        version, _ = prices_in_force(lake)
        prices = {row["channel"]: row for row in price_list(lake, version).to_pylist()}
    duplicates = sum(reasons.pop(reason, 0) for reason in ("duplicate", "duplicate_conflict"))
    due = sum_by_currency((prices[row["channel"]]["currency"], _amount(row, prices)) for row in bill)
    rows: list[tuple[str, object, object]] = [
        ("produced = in the tables", tally.produced, sum(accepted.values()) + duplicates + reasons.total()),
        ("accepted", tally.accepted, sum(accepted.values())),
        ("duplicates", tally.duplicates, duplicates),
        ("rejected", tally.broken.total(), reasons.total()),
        (
            "customers and channels",
            len(tally.by_customer_and_channel),
            sum(tally.by_customer_and_channel[key] == n for key, n in accepted.items()),
        ),
        (
            f"billed of {', '.join(map(str, days))}",
            sum(tally.by_utc_date[day] for day in days),
            sum(row["notifications"] for row in bill),
        ),
        (
            "amount = count × price",
            amounts(due),
            amounts(sum_by_currency((row["currency"], row["amount"]) for row in bill)),
        ),
    ]
    _say(f"\n{'reconciliation':<36}{'sent':>16}{'in the tables':>16}")
    for name, sent, held in rows:
        _say(f"{name:<36}{sent!s:>16}{held!s:>16}  {'ok' if sent == held else 'DIFFERENT'}")
    return all(sent == held for _, sent, held in rows)


def _amount(line: Mapping[str, Any], prices: Mapping[str, Mapping[str, Any]]) -> Decimal:
    amount: Decimal = line["notifications"] * prices[line["channel"]]["unit_price"]
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)


if __name__ == "__main__":
    sys.exit(main())
