"""Messages written by hand, for tests that must know each of them.

Belongs here: one message, and the document's example. Doesn't: traffic in bulk (sandbox/traffic.py).
"""

import json
from datetime import UTC, datetime, timedelta

from notif_assets.sandbox.traffic import Message

ACME, PADARIA = 7494212, 1000001


def notification(event: datetime, message_id: str, *, at: datetime | None = None, **changes: object) -> Message:
    """A notification that reached Kafka when it happened, or `at`; `changes` are fields of the message."""
    fields = {
        "customer_id": ACME,
        "message_id": message_id,
        "customer_name": "Acme",
        "channel": "Whatsapp",
        "payload": "Olá",
        "event_datetime": event.isoformat(timespec="milliseconds"),
        **changes,
    }
    customer = fields["customer_id"]
    assert isinstance(customer, int)
    return Message(customer, json.dumps(fields, ensure_ascii=False).encode(), milliseconds(at or event))


def milliseconds(instant: datetime) -> int:
    """As Kafka writes a timestamp."""
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def day_of_acme() -> list[Message]:
    """The document's 3 February 2020: its two messages, and others in the morning to make them 25000."""
    morning = datetime(2020, 2, 3, 8, tzinfo=UTC)
    first = datetime(2020, 2, 3, 14, 0, 1, 1_000, UTC)
    second = datetime(2020, 2, 3, 14, 0, 1, 99_000, UTC)
    return [
        notification(
            second, "A61D178E73", payload="Não identificamos a sua última mensagem. Por favor, entre em contato"
        ),
        notification(first, "5B81FF24A1", payload="Olá XXXXX, seja muito bem-vindo! Precisa de alguma ajuda?"),
        *(notification(morning + timedelta(seconds=n // 2), f"{n:X}") for n in range(24_998)),
    ]
