"""One deployment of the whole system in a folder of its own, driven by its command line and nothing else.

Belongs here: running `notif-assets` as people do, in a process or, where that adds nothing, in this one; what every
command owes its caller (exit code, one line on standard error); sending records to the embedded broker; looking at what
is in the folder afterwards. Doesn't: what a single command should print.
"""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner
from confluent_kafka import Producer

import notif_assets
from notif_assets.cli import main
from notif_assets.lake import Lake
from notif_assets.sandbox.traffic import Message, partition_of
from notif_assets_tests.cli.warm import Command

COMMAND = (sys.executable, "-m", "notif_assets")
LARGEST_BYTES = 16 * 2**20  # a message that the tests send
ROOT = Path(notif_assets.__file__).resolve().parents[1]
"""The repository."""

IN_ORDER = {"enable.idempotence": True}
"""For a producer: a new topic may refuse a request, and one that is sent again must not come after the next one."""

_DEADLINE = 300.0
_numbers = itertools.count()

Process: TypeAlias = "subprocess.Popen[bytes] | Command"


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()


@dataclass
class Deployment:
    """A lake, an inbox, reports and Dagster's storage under `home`, on a topic of the broker at `bootstrap`."""

    home: Path
    bootstrap: str
    topic: str
    partitions: int
    settings: dict[str, str] = field(default_factory=dict)

    def environment(self, **changes: str) -> dict[str, str]:
        """The variables of a command's process: no setting comes from whoever runs the tests."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIF_", "DAGSTER_"))}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return inherited | {
            "PYTHONPATH": os.pathsep.join(paths),
            "DAGSTER_HOME": str(ROOT),
            "DAGSTER_STORE": str(self.home / "dagster"),
            "NOTIF_DATA": str(self.home / "data"),
            "NOTIF_KAFKA_BOOTSTRAP": self.bootstrap,
            "NOTIF_TOPIC": self.topic,
            "NOTIF_KAFKA_TIMEOUT": "20",
            **self.settings,
            **changes,
        }

    def start(self, *arguments: object, **changes: str) -> Command:
        """The command in a process of its own, going on."""
        outputs = (self.home / f"{next(_numbers)}.{name}" for name in ("out", "err"))
        return Command([*map(str, arguments)], self.home, self.environment(**changes), *outputs)

    def start_python(
        self, *arguments: object, output: IO[bytes] | int = subprocess.PIPE, **changes: str
    ) -> "subprocess.Popen[bytes]":
        """As start, from a new Python on: where what it prints is read while it goes on, or printed for ever."""
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.home,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def run(self, *arguments: object, **changes: str) -> Answer:
        """The command in a process of its own, to its end."""
        return ended(self.start(*arguments, **changes))

    def call(self, *arguments: object, **changes: str) -> Answer:
        """The command in this process, which spares the start of Python and the imports."""
        wanted = self.environment(**changes)
        unset = dict.fromkeys(name for name in os.environ if name not in wanted)
        with contextlib.chdir(self.home):
            result = CliRunner().invoke(
                main, [str(a) for a in arguments], env={**unset, **wanted}, prog_name="notif-assets"
            )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout_bytes, result.stderr)

    @property
    def lake(self) -> Lake:
        """The lake, for looking at."""
        return Lake(self.home / "data" / "lake")

    def table(self, name: str) -> tuple[int, list[dict[str, Any]]]:
        """The watermark and the rows of a table; 0 and none, and nothing is created, while it does not exist."""
        if not (self.lake.root / name / "_delta_log" / f"{0:020}.json").exists():
            return 0, []
        with self.lake as lake:
            table = lake.table(name)
            rows: list[dict[str, Any]] = lake.rows(table.scan()).to_pylist()
            return table.watermark, rows

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table."""
        return self.table(table)[1]

    def commits(self, table: str) -> int:
        """How many commits the table's log shows; 0 while it does not exist."""
        log = self.lake.root / table / "_delta_log"
        return max((int(path.stem) + 1 for path in log.glob("*.json") if path.stem.isdecimal()), default=0)

    def send(self, records: Iterable[Message]) -> int:
        """Sends records to the partition of their customer; gives how many."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "compression.type": "lz4",
                "linger.ms": 20,
                "message.max.bytes": 2 * LARGEST_BYTES,  # with the batch around them
                **IN_ORDER,
            }
        )
        sent = 0
        for record in records:
            where = partition_of(record.customer_id, self.partitions)
            key = b"%d" % record.customer_id
            while True:
                try:
                    producer.produce(self.topic, record.value, key, where, timestamp=record.timestamp)
                    break
                except BufferError:
                    producer.poll(0.1)
            sent += 1
        assert producer.flush(30) == 0
        return sent

    def files(self) -> dict[str, int]:
        """Every file of the data folder and its size: equal before and after means that nothing was written."""
        data = self.home / "data"
        return {str(path.relative_to(data)): path.stat().st_size for path in sorted(data.rglob("*")) if path.is_file()}


def ended(process: Process, timeout: float = _DEADLINE) -> Answer:
    """Waits for the end of a started command."""
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    assert process.returncode is not None
    return Answer(process.returncode, out, err.decode())


def ok(answer: Answer) -> Answer:
    """A command that did what it was asked and had nothing to say on standard error."""
    assert (answer.code, answer.err) == (0, ""), answer
    return answer


def refusal(answer: Answer) -> str:
    """The one line of a command that refused."""
    assert answer.code != 0, answer
    assert "Traceback" not in answer.err, answer.err
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("Error: "), answer.err
    return lines[0]


def until(condition: Any, what: str, seconds: float = 300.0) -> Any:
    """Polls until `condition()` gives something true, and gives it. Fails past the deadline.

    Between two looks it waits longer than a look takes, so that looking does not slow down what is waited for.
    """
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        if answer := condition():
            return answer
        time.sleep(max(0.003, min(5 * (time.monotonic() - began), 0.5)))
    raise AssertionError(f"{what} did not happen within {seconds:g} s")


def a_free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def processes_of(store: Path) -> list[int]:
    """The processes that work on this storage of Dagster."""
    wanted = f"DAGSTER_STORE={store}".encode()
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended, or is somebody else's
            if process.name.isdigit() and wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def parquet(data: bytes) -> pa.Table:
    """A report in Parquet, read back."""
    return pq.read_table(pa.BufferReader(data))


def golden(name: str) -> str:
    """An expected output of the user's document."""
    return (Path(__file__).parents[1] / "reports" / "golden" / name).read_text(encoding="utf-8")


P = TypeVar("P", bound=Process)


@contextlib.contextmanager
def killed_at_the_end(process: P) -> Iterator[P]:
    """A process that does not outlive its test."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
