"""The traffic generator: what a notification platform sends, with its typical faults.

Belongs here: making messages, counting them, sending them at a rate. Doesn't: reading (kafka/client.py), judging
messages (notifications/validity.py): the tally says what was sent, to compare with what arrived.
"""

import itertools
import time
import zlib
from bisect import bisect
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, NamedTuple, Protocol

from notif_assets.kafka.client import KafkaError
from notif_assets.kafka.open import client_name, open_client
from notif_assets.settings import Settings

DUPLICATES = 0.01
LATE = 0.002
BROKEN = 0.001

ACME = 7494212
"""The document's customer, the one with the most messages."""

CHANNELS = ("Whatsapp", "SMS", "Email", "Push", "Telegram")
_CHANNEL_WEIGHTS = (80, 9, 6, 3, 2)
_ZIPF = 1.1

_PAYLOADS = (
    "Olá {}, seja muito bem-vindo! Precisa de alguma ajuda?",
    "Não identificamos a sua última mensagem. Por favor, entre em contato",
    "Sua fatura já está disponível, {}. Vencimento em 3 dias úteis.",
    "Promoção só até amanhã: 20% de desconto na seção de cartões 💳",
    "Confirmação: sua consulta é às 14h30. Responda SIM ou NÃO.",
    "O código de verificação é 483920. Não o compartilhe com ninguém.",
    "Seu pedido saiu para entrega e chega hoje até as 18h.",
    'Atenção: a sessão "atendimento" expirou. Deseja começar de novo?\\nResponda 1 para sim.',
)
_PEOPLE = ("João", "Conceição", "Ângela", "Antônio", "Inês", "Luís", "Márcia", "XXXXX")
_COMPANIES = ("Acme", "Padaria São João", "Farmácia Popular", "Ótica Visão", "Construções Araújo", "Café & Cia")
BROKEN_KINDS = (
    "bad_json",
    "truncated",
    "missing_field",
    "wrong_type",
    "empty",
    "tombstone",
    "not_utf8",
    "no_offset",
)


class Message(NamedTuple):
    """One message as it goes to Kafka. timestamp is when it was produced, in milliseconds since 1970 (UTC)."""

    customer_id: int
    value: bytes | None
    timestamp: int


@dataclass
class Tally:
    """What was sent. produced = accepted + duplicates + the sum of broken; both breakdowns sum up to accepted."""

    produced: int = 0
    accepted: int = 0
    duplicates: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    by_customer_and_channel: Counter[tuple[int, str]] = field(default_factory=Counter)
    by_utc_date: Counter[date] = field(default_factory=Counter)


def messages(
    seed: int, customers: int, start: datetime, rate: float, tally: Tally | None = None, late: float = LATE
) -> Iterator[Message]:
    """Messages without end, `rate` a second from `start` (with an offset) on; counted into `tally` as they are taken.

    The same arguments give the same messages; another seed gives other messages of the same customers. These follow
    a Zipf distribution; the first is the document's Acme. Of all messages about 1 % are sent again within the next
    thousands, the same bytes; of all, the share `late` is late by seconds to 40 days; 1 in 1,000 is broken in one of
    BROKEN_KINDS.
    """
    if start.tzinfo is None or rate <= 0 or customers < 1:
        raise ValueError("want a start with an offset, a positive rate and at least one customer")
    tally = tally if tally is not None else Tally()
    random = Random(seed)  # noqa: S311 (repeatable on purpose)
    ids, heads = _customers(customers)
    # Everything fixed is prepared beforehand, so a message costs three draws and one format.
    weights = list(itertools.accumulate(1 / rank**_ZIPF for rank in range(1, customers + 1)))
    tails = [
        (channel, f'","channel":"{channel}","payload":"{payload.format(person).replace(chr(34), chr(92) + chr(34))}"')
        for channel, weight in zip(CHANNELS, _CHANNEL_WEIGHTS, strict=True)
        for payload, person in zip(_PAYLOADS, _PEOPLE, strict=True)
        for _ in range(weight)
    ]
    again: deque[tuple[int, Message]] = deque()  # (when, what) to send a second time
    first_ms = int(start.timestamp() * 1000)
    clock = _Clock()
    by_customer_and_channel, by_utc_date = tally.by_customer_and_channel, tally.by_utc_date
    # A Weyl sequence in 40 bits: never the same message_id twice, nor in order.
    message_number = random.getrandbits(40)
    uniform = random.random
    for number in itertools.count():
        now = first_ms + int(number * 1000 / rate)
        tally.produced += 1
        if again and again[0][0] <= number:
            _, sent = again.popleft()
            tally.duplicates += 1
            yield Message(sent.customer_id, sent.value, now)
            continue
        which = bisect(weights, uniform() * weights[-1])
        customer = ids[which]
        channel, tail = tails[int(uniform() * len(tails))]
        message_number = (message_number + 0x9E3779B97F) & 0xFFFFFFFFFF
        luck = uniform()
        event = now - int(uniform() * 50) if luck >= late else now - int(1000 * 3_456_000 ** uniform())
        text, day = clock.iso(event, event % 10 == 0)
        body = f'{heads[which]}{message_number:010X}{tail},"event_datetime":"{text}"}}'
        if late <= luck < late + BROKEN:
            kind = BROKEN_KINDS[int(uniform() * len(BROKEN_KINDS))]
            tally.broken[kind] += 1
            yield Message(customer, _broken(kind, body, text), now)
            continue
        message = Message(customer, body.encode(), now)
        tally.accepted += 1
        by_customer_and_channel[customer, channel] += 1
        by_utc_date[day] += 1
        if luck > 1 - DUPLICATES:
            again.append((number + 1 + int(uniform() * 5000), message))
        yield message


class _Clock:
    """Milliseconds → text, remembering the seconds last asked for: formatting each time would cost half the speed."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, bool], tuple[str, str, date]] = {}

    def iso(self, milliseconds: int, brasilia: bool) -> tuple[str, date]:
        """`2020-02-03T14:00:01.001+00:00`, or at -03:00, and the UTC date."""
        second, rest = divmod(milliseconds, 1000)
        known = self._seconds.get((second, brasilia))
        if known is None:
            if len(self._seconds) > 1000:
                self._seconds.clear()
            moment = datetime.fromtimestamp(second, UTC)
            local = moment - timedelta(hours=3) if brasilia else moment
            known = local.strftime("%Y-%m-%dT%H:%M:%S."), "-03:00" if brasilia else "+00:00", moment.date()
            self._seconds[second, brasilia] = known
        text, offset, day = known
        return f"{text}{rest:03d}{offset}", day


def _customers(number: int) -> tuple[list[int], list[str]]:
    """Ids and, for each, how its messages begin: one id, one name."""
    random = Random(number)  # noqa: S311 (repeatable on purpose)
    ids = [ACME, *random.sample(range(1_000_000, 7_000_000), number - 1)]
    names = ["Acme", *(f"{_COMPANIES[id % len(_COMPANIES)]} {id % 1000}" for id in ids[1:])]
    return ids, [
        f'{{"customer_id":{id},"customer_name":"{name}","message_id":"' for id, name in zip(ids, names, strict=True)
    ]


def _broken(kind: str, body: str, event_datetime: str) -> bytes | None:
    match kind:
        case "bad_json":
            return body.replace('":', '"', 1).encode()
        case "truncated":
            return body[: len(body) * 2 // 3].encode()  # between letters: within one it would be not_utf8
        case "missing_field":
            return body.replace('"channel"', '"chanel"').encode()
        case "wrong_type":
            return body.replace('"customer_id":', '"customer_id":"', 1).replace(",", '",', 1).encode()
        case "not_utf8":
            return body.encode("latin-1", "replace").replace(b'"payload":"', b'"payload":"\xe3')
        case "no_offset":
            return body.replace(event_datetime, event_datetime[:-6]).encode()
        case "empty":
            return b""
    return None  # a tombstone


def partition_of(customer_id: int, partitions: int) -> int:
    """The partition that a customer's messages go to, whichever client sends them."""
    return zlib.crc32(b"%d" % customer_id) % partitions


def produce(
    settings: Settings,
    rate: float,
    seconds: float,
    customers: int = 5000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Tally:
    """Sends `rate` messages a second for `seconds` to `settings.topic`, lz4, and returns once all are acknowledged.

    `progress` is called ten times a second with the number of messages sent; `stopped` says whether to end early.
    Raises KafkaUnavailable, TopicMissing, or KafkaError when a message isn't acknowledged.
    """
    with open_client(settings) as client:
        count = len(client.offsets().partitions)
    sender: _Sender = (_ConfluentSender if client_name(settings) == "confluent" else _PythonSender)(settings)
    total = int(rate * seconds)
    tally = Tally()
    start = datetime.now(UTC)
    began = time.monotonic()
    source = messages(seed, customers, start, rate, tally)
    sent = 0
    try:
        partitions: dict[int, int] = {}
        while sent < total and not stopped():
            due = min(total, int((time.monotonic() - began + 0.1) * rate) + 1)
            for message in itertools.islice(source, due - sent):
                customer = message.customer_id
                partition = partitions.get(customer)
                if partition is None:
                    partition = partitions[customer] = partition_of(customer, count)
                sender.send(b"%d" % customer, message.value, message.timestamp, partition)
            sent = due
            if progress:
                progress(sent)
            time.sleep(max(0.0, min(0.1, began + sent / rate - time.monotonic())))
        sender.finish()
    finally:
        sender.close()
    return tally


class _Sender(Protocol):
    """Sends lz4 batches that the broker acknowledges once, whatever is retried on the way (idempotence)."""

    def __init__(self, settings: Settings) -> None: ...

    def send(self, key: bytes, value: bytes | None, timestamp: int, partition: int) -> None: ...

    def finish(self) -> None:
        """Waits until all are acknowledged. Raises KafkaError if one isn't."""

    def close(self) -> None: ...


class _ConfluentSender:
    def __init__(self, settings: Settings) -> None:
        from confluent_kafka import Producer

        from notif_assets.kafka.confluent_client import connection_config, new_handle

        self._topic, self._timeout = settings.topic, settings.kafka_timeout
        self._failure = ""
        self._producer: Any = new_handle(
            Producer,
            connection_config(settings)
            | {
                "compression.type": "lz4",
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
                "message.timeout.ms": int(settings.kafka_timeout * 1000),
                "delivery.report.only.error": True,
                "on_delivery": self._on_failure,
                "error_cb": lambda _error: None,  # else it is logged; what counts is the delivery
            },
        )

    def _on_failure(self, error: Any, _message: object) -> None:
        if error is not None:
            self._failure = error.name()

    def send(self, key: bytes, value: bytes | None, timestamp: int, partition: int) -> None:
        while True:
            try:
                return self._producer.produce(self._topic, value, key, partition, timestamp=timestamp)  # type: ignore[no-any-return]
            except BufferError:  # the broker is slower than we are
                self._producer.poll(0.1)
                self._check()

    def finish(self) -> None:
        left = self._producer.flush(self._timeout + 1)
        self._check()
        if left:
            raise KafkaError(f"{left} messages weren't acknowledged within {self._timeout:g} s: look at the broker")

    def _check(self) -> None:
        if self._failure:
            raise KafkaError(f"a message wasn't acknowledged ({self._failure}): look at the broker")

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(1)


class _PythonSender:
    def __init__(self, settings: Settings) -> None:
        from kafka import KafkaProducer

        from notif_assets.kafka.python_client import connection_config, known_config

        self._topic, self._timeout = settings.topic, settings.kafka_timeout
        self._failure = ""
        self._producer: Any = KafkaProducer(
            **known_config(KafkaProducer, connection_config(settings), settings.kafka_timeout),
            compression_type="lz4",
            enable_idempotence=True,
            linger_ms=20,
            batch_size=256 * 1024,
            max_block_ms=int(settings.kafka_timeout * 1000),
        )

    def send(self, key: bytes, value: bytes | None, timestamp: int, partition: int) -> None:
        self._producer.send(self._topic, value, key, partition=partition, timestamp_ms=timestamp).add_errback(
            self._on_failure
        )

    def _on_failure(self, error: BaseException) -> None:
        self._failure = type(error).__name__

    def finish(self) -> None:
        from kafka.errors import KafkaTimeoutError

        try:
            self._producer.flush(timeout=self._timeout)
        except KafkaTimeoutError:
            self._failure = self._failure or "KafkaTimeoutError"
        if self._failure:
            raise KafkaError(f"a message wasn't acknowledged ({self._failure}): look at the broker")

    def close(self) -> None:
        self._producer.close(timeout=1)
