"""One real Apache Kafka broker on this machine, for the tests of this room and for `make kafka`.

Belongs here: fetching Kafka by Maven (pom.xml) into data/kafka, starting a broker in KRaft mode, stopping, killing,
freezing and restarting it, its certificates and passwords. Doesn't: the embedded broker, which needs no Java
(notif_assets/sandbox/broker.py), what is tested on either.

Run as a program it is that broker in the foreground, until Ctrl-C, and leaves nothing but the fetched files.
"""

import argparse
import fcntl
import hashlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from notif_assets.core.signals import Signals
from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import a_free_port

LOOPBACK = "127.0.0.1"
USER, PASSWORD = "ana", "abre-te"  # whom the listeners with SASL let in
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")

_POM = Path(__file__).with_name("pom.xml")
_HOME = Path(__file__).resolve().parents[3] / "data" / "kafka"
_BOOT_SECONDS = 120.0  # it takes four, on a machine with nothing else to do

_SERVER = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listeners=CONTROLLER://{host}:{controller},{listeners}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocols}
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.hours=-1
message.max.bytes=16777216
socket.request.max.bytes=209715200
"""
# Compaction within a second of what is due, and as little standing by as a broker for tests may.
_FOR_TESTS = """\
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=4194304
log.initial.task.delay.ms=500
num.io.threads=4
num.network.threads=2
"""
_SECURITY = """\
ssl.keystore.type=PEM
ssl.keystore.location={home}/server.keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location={home}/ca.pem
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
"""
_PLAIN_LOGIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";'
_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_PROTOCOLS = {"PLAIN": "PLAINTEXT", "TLS": "SSL", "MUTUAL": "SSL", "LOGIN": "SASL_PLAINTEXT", "BOTH": "SASL_SSL"}


class KafkaNotRunning(Exception):
    """Kafka could not be fetched or does not start; the message says why and what to do."""


def tools_missing() -> str | None:
    """What Kafka needs and this machine lacks, as a sentence; None if it can run."""
    missing = [] if shutil.which("java") else ["java"]
    if not _libraries().is_dir() and not shutil.which("mvn"):
        missing.append("mvn")
    return (
        f"Apache Kafka needs {' and '.join(missing)}: apt-get install openjdk-17-jre-headless maven"
        if missing
        else None
    )


def fetched() -> Path:
    """The folder of Kafka's libraries, fetched once by Maven. Raises KafkaNotRunning."""
    libraries = _libraries()
    _HOME.mkdir(parents=True, exist_ok=True)
    with (_HOME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if libraries.is_dir():
            return libraries
        if missing := tools_missing():
            raise KafkaNotRunning(missing)
        with tempfile.TemporaryDirectory(dir=_HOME) as draft:
            command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
            made = subprocess.run(
                [*command, f"-DoutputDirectory={draft}/libs"], stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            if made.returncode:
                said = [line for line in made.stdout.splitlines() if "ERROR" in line] or [made.stderr.strip()]
                raise KafkaNotRunning(f"Maven could not fetch Apache Kafka: {said[0]}")
            Path(draft, "libs").rename(libraries)
    return libraries


def _libraries() -> Path:
    return _HOME / f"libs-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"  # another pom, other libraries


class ApacheKafka:
    """A broker with its data under `home`, from `start` to `close`; what it prints is in kafka.log there.

    `port` is that of its PLAINTEXT listener (0: any free one). `secure` gives it more listeners, see `address`.
    """

    def __init__(self, home: Path, port: int = 0, *, secure: bool = False) -> None:
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        names = list(_PROTOCOLS) if secure else ["PLAIN"]
        self._ports = {name: a_free_port() for name in names}
        if port:
            _refuse_taken(port)
            self._ports["PLAIN"] = port
        self._properties = home / "server.properties"
        home.mkdir(parents=True, exist_ok=True)
        text = _SERVER.format(
            host=LOOPBACK,
            controller=a_free_port(),
            listeners=",".join(f"{name}://{self.address(name)}" for name in names),
            protocols=",".join(f"{name}:{_PROTOCOLS[name]}" for name in names),
            logs=home / "data",
        )
        if secure:
            make_certificates(home)
            text += _FOR_TESTS + _SECURITY.format(home=home)
            for listener in ("login", "both"):
                login = _PLAIN_LOGIN.format(user=USER, password=PASSWORD)
                text += f"listener.name.{listener}.plain.sasl.jaas.config={login}\n"
                for mechanism in SCRAM:
                    text += f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config={_SCRAM_LOGIN}\n"
        self._properties.write_text(text)
        format = ["kafka.tools.StorageTool", "format", "--config", str(self._properties), "--cluster-id", _an_id()]
        if secure:
            for mechanism in SCRAM:
                format += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
        formatted = subprocess.run(self._java(*format), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if formatted.returncode:
            raise KafkaNotRunning(f"Kafka's storage can't be made: {formatted.stdout}{formatted.stderr}")

    @property
    def bootstrap(self) -> str:
        """Where clients without any security connect."""
        return self.address("PLAIN")

    def address(self, listener: str) -> str:
        """host:port of a listener: PLAIN, TLS, MUTUAL (TLS that asks for the client's certificate), LOGIN (SASL), BOTH
        (SASL over TLS)."""
        return f"{LOOPBACK}:{self._ports[listener]}"

    def start(self) -> None:
        """Starts the broker, the first time or again, and waits until it answers; nothing if it runs. Raises
        KafkaNotRunning."""
        with self._starting:
            if self._process is None:
                self._start()

    def _start(self) -> None:
        with (self.home / "kafka.log").open("ab") as log:
            process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for whoever started it, who then stops it
            )
        self._process = process
        end = time.monotonic() + _BOOT_SECONDS
        while not self._answers():
            self.require_alive()
            if time.monotonic() > end:
                self.kill()
                raise KafkaNotRunning(f"Kafka did not answer within {_BOOT_SECONDS:g} s: see {self.home}/kafka.log")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            AdminClient(self._client_config()).list_topics(timeout=1)
        except KafkaException:
            return False
        return True

    def freeze(self) -> None:
        """The process stands still: connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it stood still."""
        self._signal(signal.SIGCONT)

    def require_alive(self) -> None:
        """Raises KafkaNotRunning if the process ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            said = (self.home / "kafka.log").read_text(errors="replace").strip().splitlines()[-5:]
            raise KafkaNotRunning(f"Kafka ended: {' '.join(said)}")

    def kill(self) -> None:
        """The process is gone at once; a second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Asks the process to end, and sees that it does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                pass
            finally:
                self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_topic(self, topic: str, partitions: int, **config: str) -> None:
        """Adds a topic; `config` is its own, with underscores for dots."""
        dotted = {name.replace("_", "."): value for name, value in config.items()}
        admin = self._admin()
        admin.create_topics([NewTopic(topic, partitions, 1, config=dotted)])[topic].result(30)

    def delete_topic(self, topic: str) -> None:
        """Deletes a topic, and returns when it is gone."""
        admin = self._admin()
        admin.delete_topics([topic])[topic].result(30)
        end = time.monotonic() + 30
        while topic in admin.list_topics(timeout=10).topics:
            assert time.monotonic() < end, f"{topic} is still there"
            time.sleep(0.05)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """The topic has so many partitions from now on."""
        admin = self._admin()
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """What retention does, at once: the partition begins at `offset` from now on."""
        where = TopicPartition(topic, partition, offset)
        admin = self._admin()
        [deleted] = admin.delete_records([where]).values()
        assert deleted.result(30).low_watermark == offset

    def log_of(self, topic: str, partition: int) -> Path:
        """The folder of the partition's segments."""
        return self.home / "data" / f"{topic}-{partition}"

    def _admin(self) -> AdminClient:
        return AdminClient(self._client_config())

    def _client_config(self) -> dict[str, str | int | float | bool]:
        return {"bootstrap.servers": self.bootstrap, "log_level": 0, "socket.timeout.ms": 10_000}

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _java(self, *arguments: str) -> list[str]:
        memory = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        return ["java", *memory, "-cp", f"{fetched()}/*", *arguments]


def make_certificates(home: Path) -> None:
    """ca.pem, the broker's and a client's certificate of that authority; other-ca.pem, which has signed neither."""
    (home / "extensions").write_text(f"subjectAltName=IP:{LOOPBACK}\n")
    ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for authority in ("ca", "other-ca"):
        _openssl(home, f"req -x509 {ec} -subj /CN={authority} -days 2 -keyout {authority}.key -out {authority}.pem")
    for name in ("server", "client"):
        _openssl(home, f"req {ec} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        signed = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions"
        _openssl(home, f"x509 -req -in {name}.csr {signed} -out {name}.pem")
    (home / "server.keystore.pem").write_text((home / "server.key").read_text() + (home / "server.pem").read_text())


def _openssl(home: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=home, check=True, capture_output=True)


def _an_id() -> str:
    return urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()  # begins with no -, like an option


def _refuse_taken(port: int) -> None:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise KafkaNotRunning(f"port {port} is taken ({error.strerror}): stop what uses it or choose another") from None


def main() -> None:
    """The broker in the foreground."""
    settings = Settings()
    parser = argparse.ArgumentParser(description="Run one Apache Kafka broker until Ctrl-C. Its data goes with it.")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--topic", default=settings.topic)
    parser.add_argument("--partitions", type=int, default=12)
    options = parser.parse_args()
    try:
        with (
            Signals() as stop,
            tempfile.TemporaryDirectory(prefix="notif-assets-kafka-") as home,
            ApacheKafka(Path(home), options.port) as kafka,
        ):
            kafka.start()
            kafka.create_topic(options.topic, options.partitions)
            print(
                f"Apache Kafka at {kafka.bootstrap}, topic {options.topic}, {options.partitions} partitions; "
                "Ctrl-C ends it",
                flush=True,
            )
            while not stop.wait(1):
                kafka.require_alive()
    except KafkaNotRunning as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
