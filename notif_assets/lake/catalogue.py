"""The catalogue: every table of the lake, its columns, their types and what they mean.

Belongs here: what a table looks like and which of its rows are kept apart (partitions) or skipped (statistics).
Doesn't: how rows are committed (tables.py), how they are computed (sql/).

All timestamps are UTC in microseconds, money is decimal, partition columns are dates and integers only.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import pyarrow as pa

INT, LONG, TEXT, BYTES, DATE = pa.int32(), pa.int64(), pa.string(), pa.binary(), pa.date32()
TIMESTAMP = pa.timestamp("us", "UTC")
UNIT_PRICE, AMOUNT = pa.decimal128(18, 6), pa.decimal128(18, 2)


Personal = Literal["key", "record", "rejected record", "name", "payload", "answer", "answers"]
"""What a column holds of people, which is how maintenance/redaction.py blanks it."""


@dataclass(frozen=True)
class Column:
    """One column: `meaning` is what the UI and the table's documentation say of it.

    A `large` one holds texts or bytes as long as a producer makes them: no file keeps statistics or a dictionary of it,
    for both would hold whole values. A `personal` one is blanked when a customer is erased and when payloads expire.

    `since` is the version of the catalogue that brought it. One that came later is nullable, and null in the rows of
    before. A `shared` one has the same value in every row of a version, so a copy need hold it only once.
    """

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False
    large: bool = False
    since: int = 1
    personal: Personal | None = None
    shared: bool = False


RETENTION = timedelta(days=7)
OF_EVERY_BATCH = timedelta(days=1)
"""The retention of what each batch writes anew: files of a week would be most of the lake."""


@dataclass(frozen=True)
class Schema:
    """One table. `statistics` are the columns whose bounds let a reader skip files, `sort` the order after compaction,
    `file_rows` how many rows a file then has at most. Before it, each file that batches write has a range of `cluster`
    for itself, where the table has such a column. `retention` is how long a file stays that no snapshot refers to
    any more, for readers of older ones.

    Every table names its statistics: Delta would else write the smallest and largest text of each file, personal data
    too, into its log.

    `origin` says what may be done to it: `books` are written once and never rebuilt, `derived` tables are functions
    of the table before them, `computed_from`, and `received` ones hold what came from outside. `rebuilt_by_day` says
    whether `rebuild` can take some days of a derived table alone.

    `key` names the columns whose values no two rows share; a table without one may hold the same row twice.
    """

    name: str
    meaning: str
    origin: Literal["book", "derived", "received"]
    columns: tuple[Column, ...]
    statistics: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    sort: tuple[str, ...] = ()
    cluster: str | None = None
    file_rows: int = 1_000_000
    group: str = field(default="notifications")
    retention: timedelta = RETENTION
    computed_from: str | None = None
    rebuilt_by_day: bool = False
    key: tuple[str, ...] = ()

    @property
    def arrow(self) -> pa.Schema:
        """The columns as Arrow sees them, in the catalogue's order."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    @property
    def personal(self) -> frozenset[Personal]:
        """What the table's columns hold of people; empty if nothing."""
        return frozenset(column.personal for column in self.columns if column.personal is not None)

    @property
    def large(self) -> frozenset[str]:
        """The names of the columns that hold values of any length."""
        return frozenset(column.name for column in self.columns if column.large)

    def complete(self, rows: pa.Table) -> pa.Table:
        """The rows with the columns that came after the first version; null where the rows lack them."""
        for column in self.since(2):
            if column.name not in rows.column_names:
                rows = rows.append_column(column.name, pa.nulls(rows.num_rows, column.type))
        return rows

    def since(self, version: int) -> list[Column]:
        """The columns that this version of the catalogue, or a later one, brought."""
        return [column for column in self.columns if column.since >= version]


def _event_partition() -> tuple[Column, ...]:
    return (
        Column("event_date", DATE, "UTC date of the event; partition"),
        Column("event_hour", INT, "UTC hour of the event, 0–23; partition"),
    )


def _kafka_position() -> tuple[Column, ...]:
    return (
        Column("kafka_partition", INT, "partition of the topic"),
        Column("kafka_offset", LONG, "offset within the partition"),
        Column("kafka_timestamp", TIMESTAMP, "the record's own time in Kafka; null where it has none", nullable=True),
    )


_BATCH = Column("batch", LONG, "number of the batch that brought the row: the watermark of every table from Kafka on")
_TOPIC = Column("topic", TEXT, "Kafka topic")
_INGESTED = (
    Column("ingested_at", TIMESTAMP, "when the batch was planned, which is before its records were read"),
    Column("ingest_date", DATE, "UTC date of ingested_at; partition"),
)
_MESSAGE = (
    Column("customer_id", LONG, "the customer, 1 … 2⁶³−1"),
    Column("message_id", TEXT, "the message's id, unique within its customer"),
    Column("customer_name", TEXT, "the customer's name as the message gave it", personal="name"),
    Column("channel", TEXT, "WhatsApp, SMS …, as the message gave it"),
    Column("payload", TEXT, "the text that was sent", large=True, personal="payload"),
    Column("event_datetime", TIMESTAMP, "when the notification happened"),
)
_RUN_ID = Column("run_id", TEXT, "the run that wrote the row")

VERSION = 3
"""Of the catalogue: what lake.json says of a lake that has all of it. A change of a table that exists is a new version,
and a step in migrations.py."""

SCHEMAS: dict[str, Schema] = {
    schema.name: schema
    for schema in (
        Schema(
            "ingest_batches",
            "The ledger: which offsets each batch takes, written before they are read; one row for every partition.",
            "book",
            (
                _BATCH,
                Column("kind", TEXT, "kafka (a range of the topic), readmit or dedup (rows moved between tables)"),
                _TOPIC,
                Column("topic_id", TEXT, "the topic's own id, where the broker tells it", nullable=True),
                Column("kafka_partition", INT, "partition of the topic"),
                Column("log_start_offset", LONG, "first offset that Kafka held when the batch was planned"),
                Column("start_offset", LONG, "first offset of the range"),
                Column("end_offset", LONG, "end of the range, exclusive"),
                Column("log_end_offset", LONG, "Kafka's last stable offset when the batch was planned, exclusive"),
                Column("planned_at", TIMESTAMP, "when Kafka was asked for its offsets; never decreases"),
                _RUN_ID,
                Column("dedup_through", DATE, "dedup: every day up to this one is free of duplicates", nullable=True),
                Column("readmit_reason", TEXT, "readmit: the reason whose rejected messages are tried again", True),
                Column(
                    "taken_offset", LONG, "the newest record taken before start_offset; -1: none was", True, since=2
                ),
                Column("taken_timestamp", TIMESTAMP, "that record's own time in Kafka", True, since=2),
                Column("taken_hash", TEXT, "hash of its key and value; null where they may be blanked", True, since=2),
            ),
            statistics=("batch", "planned_at"),
            sort=("batch", "planned_at", "kafka_partition"),
        ),
        Schema(
            "ingest_losses",
            "Offsets that Kafka deleted before they were read, each accepted by somebody.",
            "book",
            (
                _BATCH,
                Column("kafka_partition", INT, "partition of the topic"),
                Column("start_offset", LONG, "first lost offset"),
                Column("end_offset", LONG, "end of the lost range, exclusive"),
                Column("accepted_by", TEXT, "who accepted the loss"),
                Column("accepted_at", TIMESTAMP, "when"),
            ),
            statistics=("batch",),
        ),
        Schema(
            "raw_notifications",
            "Bronze: every record of the topic as received, append-only.",
            "received",
            (
                _BATCH,
                _TOPIC,
                *_kafka_position(),
                Column("key", BYTES, "the record's key", nullable=True, large=True, personal="key"),
                Column("value", BYTES, "the record's value as received", nullable=True, large=True, personal="record"),
                *_INGESTED,
            ),
            partition_by=("ingest_date",),
            statistics=("batch", "kafka_partition", "kafka_offset"),
            file_rows=4_000_000,  # every batch reads the log of all there are, and it is kept for years
        ),
        Schema(
            "rejected_notifications",
            "Every message that was not accepted, with its reason.",
            "derived",
            (
                _BATCH,
                _TOPIC,
                *_kafka_position(),
                Column(
                    "value",
                    BYTES,
                    "the record's value as received, of an oversized one the first KiB",
                    nullable=True,
                    large=True,
                    personal="rejected record",
                ),
                Column("reason", TEXT, "why, from the fixed list in notifications/validity.py"),
                Column("detail", TEXT, "where to look; never a value of the message"),
                Column("customer_id", LONG, "the customer, where it could be told", nullable=True),
                Column("message_id", TEXT, "the message's id, where it could be told", nullable=True),
                *_INGESTED,
            ),
            partition_by=("ingest_date",),
            statistics=("batch", "kafka_partition", "kafka_offset", "reason"),
            computed_from="raw_notifications",
        ),
        Schema(
            "notifications",
            "Silver: each valid message once.",
            "derived",
            (
                _BATCH,
                _TOPIC,
                *_MESSAGE,
                *_kafka_position(),
                _INGESTED[0],
                *_event_partition(),
            ),
            partition_by=("event_date", "event_hour"),
            statistics=("batch", "customer_id", "event_datetime", "kafka_partition", "kafka_offset"),
            sort=("customer_id", "event_datetime", "message_id"),
            computed_from="raw_notifications",
        ),
        Schema(
            "minute_aggregates",
            "Gold: notifications per customer, channel and minute.",
            "derived",
            (
                Column("batch", LONG, "the newest batch counted in the row"),
                Column("customer_id", LONG, "the customer"),
                Column("customer_name", TEXT, "newest name of the minute (by event, then by name)", personal="name"),
                Column("channel", TEXT, "the channel"),
                Column("minute", TIMESTAMP, "the minute's beginning"),
                Column("notifications", LONG, "messages counted"),
                Column("first_event", TIMESTAMP, "first event counted"),
                Column("last_event", TIMESTAMP, "last event counted"),
                *_event_partition(),
            ),
            partition_by=("event_date", "event_hour"),
            statistics=("batch", "customer_id", "minute", "notifications"),
            sort=("customer_id", "channel", "minute"),
            cluster="minute",
            file_rows=100_000,  # a late message costs the rewriting of one
            key=("minute", "customer_id", "channel"),
            retention=OF_EVERY_BATCH,
            computed_from="notifications",
            rebuilt_by_day=True,
        ),
        Schema(
            "customer_panel",
            "What the panel shows: each known customer and channel, counted for the current billing day.",
            "derived",
            (
                Column("billing_date", DATE, "the day counted"),
                Column("customer_id", LONG, "the customer"),
                Column("customer_name", TEXT, "the customer's newest name", personal="name"),
                Column("channel", TEXT, "the channel"),
                Column("notifications", LONG, "messages of that day so far"),
                Column("last_event", TIMESTAMP, "newest event of the customer on the channel", nullable=True),
                Column(
                    "updated_at",
                    TIMESTAMP,
                    "everything up to here is counted; null before the first catch-up",
                    nullable=True,
                    shared=True,
                ),
            ),
            statistics=("customer_id",),
            key=("customer_id", "channel"),
            retention=OF_EVERY_BATCH,
            computed_from="minute_aggregates",
        ),
        Schema(
            "prices",
            "Price lists, each loaded whole and kept for ever.",
            "book",
            (
                Column("price_version", TEXT, "content hash of the list"),
                Column("customer_id", LONG, "the customer whose own price it is; null: everyone's", nullable=True),
                Column("channel", TEXT, "the channel"),
                Column("unit_price", UNIT_PRICE, "price of one notification"),
                Column("currency", TEXT, "ISO 4217 code"),
                Column("valid_from", DATE, "first billing day; null: always was", nullable=True),
                Column("valid_to", DATE, "end, exclusive; null: still is", nullable=True),
                Column("loaded_at", TIMESTAMP, "when the list was loaded; the newest list prices open days"),
            ),
            statistics=("loaded_at",),
            group="billing",
        ),
        Schema(
            "daily_billing",
            "The bill of each day: a line per customer and channel; final once the day is closed.",
            "book",
            (
                Column("billing_date", DATE, "the day billed, in the billing time zone; partition"),
                Column("customer_id", LONG, "the customer"),
                Column("customer_name", TEXT, "the customer's newest name of the day", personal="name"),
                Column("channel", TEXT, "the channel"),
                Column("notifications", LONG, "messages billed"),
                Column("unit_price", UNIT_PRICE, "price of one notification"),
                Column("amount", AMOUNT, "notifications × unit_price, rounded half up to cents once"),
                Column("currency", TEXT, "ISO 4217 code"),
                Column("price_version", TEXT, "the price list used"),
                Column("status", TEXT, "provisional or final"),
                Column("through_batch", LONG, "the newest batch counted"),
                _RUN_ID,
                Column("computed_at", TIMESTAMP, "when the line was computed"),
            ),
            partition_by=("billing_date",),
            statistics=("customer_id",),
            key=("billing_date", "customer_id", "channel"),
            group="billing",
        ),
        Schema(
            "billing_days",
            "Every closed day, even one without lines; a row more each time it is priced anew.",
            "book",
            (
                Column("billing_date", DATE, "the closed day"),
                Column("status", TEXT, "final (closed) or repriced (from here on another list prices the day)"),
                Column("through_batch", LONG, "the newest batch counted"),
                Column("price_version", TEXT, "the price list that holds for the day from this row on"),
                Column("lines", LONG, "lines of the bill"),
                Column("notifications", LONG, "messages billed by the lines"),
                Column("amount", AMOUNT, "sum of the lines, in the currency of the list that closed the day"),
                Column("closed_at", TIMESTAMP, "when the row was written"),
                _RUN_ID,
                Column("note", TEXT, "final: losses accepted of what came in that time; repriced: why", nullable=True),
            ),
            statistics=("billing_date",),
            group="billing",
        ),
        Schema(
            "billing_adjustments",
            "Corrections of closed days: lines + adjustments = the recount, always, each currency for itself.",
            "book",
            (
                Column("adjustment_id", TEXT, "hash of what the adjustment brings up to date"),
                Column("billing_date", DATE, "the closed day; partition"),
                Column("customer_id", LONG, "the customer"),
                Column("customer_name", TEXT, "the customer's newest name of the day", personal="name"),
                Column("channel", TEXT, "the channel"),
                Column("notifications_delta", LONG, "messages more (or fewer) than billed so far"),
                Column("unit_price", UNIT_PRICE, "price of one notification"),
                Column("amount_delta", AMOUNT, "money more (or less) than billed so far, in the list's currency"),
                Column("price_version", TEXT, "the price list used, which has one currency"),
                Column("reason", TEXT, "late, duplicate, readmitted or repriced"),
                Column("through_batch", LONG, "the newest batch counted"),
                _RUN_ID,
                Column("created_at", TIMESTAMP, "when the adjustment was written"),
            ),
            partition_by=("billing_date",),
            statistics=("customer_id",),
            key=("adjustment_id",),
            group="billing",
        ),
        Schema(
            "invoices",
            "Invoices per account and month, as the files gave them.",
            "received",
            (
                Column("customer", TEXT, "the customer"),
                Column("account", TEXT, "the customer's account"),
                Column("month", DATE, "first day of the invoiced month"),
                Column("invoice", AMOUNT, "the amount invoiced"),
                Column("source_file", TEXT, "the file"),
                Column("source_line", INT, "its line, 1 is the header"),
                Column(
                    "set_aside",
                    TEXT,
                    "the file of which a line of this account and month was set aside: no average; null: whole",
                    True,
                    since=3,
                ),
            ),
            statistics=("month",),
            group="invoices",
        ),
        Schema(
            "rejected_file_rows",
            "Rows of invoice and answer files that were set aside, with the place and the reason; no values.",
            "received",
            (
                Column("source_file", TEXT, "the file"),
                Column("source_line", INT, "the line where the row begins"),
                Column("reason", TEXT, "why, from a fixed list"),
                Column("detail", TEXT, "what to mend; never a value of the file"),
                Column("loaded_at", TIMESTAMP, "when the file was imported"),
            ),
            statistics=("loaded_at",),
            group="files",
        ),
        Schema(
            "invoice_window_averages",
            "Average invoice per account over the 3 and the 6 months before the reference month.",
            "derived",
            (
                Column("reference_month", DATE, "first day of the reference month; partition"),
                Column("customer", TEXT, "the customer"),
                Column("account", TEXT, "the customer's account"),
                Column("avg_invoices_last_3_months", AMOUNT, "null where one of the 3 months is missing", True),
                Column("avg_invoices_last_6_months", AMOUNT, "null where one of the 6 months is missing", True),
            ),
            partition_by=("reference_month",),
            statistics=("avg_invoices_last_3_months",),
            key=("reference_month", "customer", "account"),
            group="invoices",
            computed_from="invoices",
            rebuilt_by_day=True,
        ),
        Schema(
            "chatbot_answers",
            "Every answer of every chatbot session, as the hourly files gave them.",
            "received",
            (
                Column("answer_date", DATE, "date of the file; partition"),
                Column("hour", INT, "hour of the file, 0–23; partition"),
                Column("customer", TEXT, "the customer"),
                Column("flow", TEXT, "the conversation flow"),
                Column("session", TEXT, "the session within customer and flow"),
                Column("timestamp", TIMESTAMP, "when the answer was given"),
                Column("key", TEXT, "the question's key"),
                Column("value", TEXT, "the answer as received", large=True, personal="answer"),
                Column("source_file", TEXT, "the file"),
                Column("position", LONG, "place of the key–value pair in the file, from 1"),
                Column(
                    "set_aside",
                    TEXT,
                    "why this answer was set aside, its value is empty then; value_not_text: given at `timestamp`, "
                    "else its time is not known; null: taken",
                    True,
                    since=3,
                ),
            ),
            partition_by=("answer_date", "hour"),
            statistics=("timestamp",),
            group="chatbot",
        ),
        Schema(
            "chatbot_reports",
            "Per day and session: first and last answer, and the last non-blank answer to each question.",
            "derived",
            (
                Column("answer_date", DATE, "the day; partition"),
                Column("customer", TEXT, "the customer"),
                Column("flow", TEXT, "the conversation flow"),
                Column("session", TEXT, "the session"),
                Column("first_answer_dt", TIMESTAMP, "first non-blank answer"),
                Column("last_answer_dt", TIMESTAMP, "last non-blank answer"),
                Column("answers", pa.map_(TEXT, TEXT), "key → last answer, null: set aside", personal="answers"),
            ),
            partition_by=("answer_date",),
            statistics=("first_answer_dt",),
            key=("answer_date", "customer", "flow", "session"),
            group="chatbot",
            computed_from="chatbot_answers",
            rebuilt_by_day=True,
        ),
    )
}
