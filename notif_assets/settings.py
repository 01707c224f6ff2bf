"""Every knob of the project, once: its name, type, default and meaning.

Belongs here: what a deployment may change. Doesn't: constants of a rule (they live beside the rule), and
anything that opens a file or a connection.

Each setting is read from the environment variable `NOTIF_<NAME>`, then from `.env` in the current folder, then from
the default. Kafka's own client properties (security and the like) keep Kafka's names: see `kafka_properties`.
"""

import difflib
import os
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values
from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from notif_assets.core.days import FIRST_DAY

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    """`90`, `90s`, `30m`, `1h` and `400d` beside the ISO 8601 durations that pydantic knows."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value)):
        return timedelta(seconds=float(match[1]) * _SECONDS[match[2] or "s"])
    return value


def _duration_text(value: timedelta) -> str:
    """As `_duration` reads it.

    >>> _duration_text(timedelta(hours=36)), _duration_text(timedelta(milliseconds=1500))
    ('36h', '1.5s')
    """
    seconds = value.total_seconds()
    unit = next((unit for unit in reversed(_SECONDS) if seconds and seconds % _SECONDS[unit] == 0), "s")
    return f"{seconds / _SECONDS[unit]:.12g}{unit}"


def local_path(value: str) -> Path:
    """A folder of this machine, `~` expanded. Raises ValueError for an address (it would name a folder below the
    current one) and for an unknown user."""
    if "://" in value:
        raise ValueError("want a folder of this machine, not an address: object storage is not supported yet")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("there is no such user: write the folder's whole path") from None


def _folder(value: object) -> object:
    """A folder's name as it is written in the environment; an empty one says nothing."""
    if isinstance(value, str):
        return local_path(value) if value.strip() else None
    return value


def _folder_of_data(value: object) -> object:
    return Path("data") if (folder := _folder(value)) is None else folder


Folder = Annotated[Path | None, BeforeValidator(_folder)]
Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(_duration_text, when_used="json")]


class Settings(BaseSettings):
    """The settings of one deployment. Raises pydantic.ValidationError, naming the variable, on an impossible value."""

    model_config = SettingsConfigDict(
        env_prefix="NOTIF_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    data: Annotated[Path, BeforeValidator(_folder_of_data)] = Field(
        Path("data"), description="The folder that holds lake, inbox and reports unless they are set."
    )
    lake_root: Folder = Field(
        None, validation_alias=AliasChoices("NOTIF_LAKE", "lake_root"), description="Where the Delta tables live."
    )
    inbox_root: Folder = Field(
        None, validation_alias=AliasChoices("NOTIF_INBOX", "inbox_root"), description="Files dropped here are imported."
    )
    reports_root: Folder = Field(
        None,
        validation_alias=AliasChoices("NOTIF_REPORTS", "reports_root"),
        description="Where closing a day or a month writes its reports.",
    )

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="host:port of one or more brokers, comma separated.")
    topic: str = Field(
        "notifications", description="The topic of the notifications; stored in the lake, not to be changed."
    )
    kafka_client: Literal["auto", "kafka-python", "confluent"] = Field(
        "auto", description="Which client reads: auto takes confluent-kafka when it is installed."
    )
    kafka_properties: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Kafka\'s own client properties as JSON, e.g. {"security.protocol": "SASL_SSL", …}.',
    )
    kafka_timeout: float = Field(
        30.0, gt=0, description="Seconds without an answer or a record before a read gives up."
    )

    timezone: str = Field(
        "UTC", description="The zone whose calendar days are billed; stored in the lake, not to be changed."
    )
    first_day: date = Field(
        FIRST_DAY,
        ge=FIRST_DAY,
        description="The first day that is billed, as 2024-05-01: bills begin with it, earlier events are rejected. It "
        "may be moved back at any time, and forward only up to the first closed day.",
    )
    grace: Duration = Field(
        timedelta(hours=1), description="How long after its end a day may close (90s, 30m, 1h, 2d)."
    )
    engine: Literal["duckdb", "spark"] = Field("duckdb", description="What runs the SQL.")
    engine_memory: str = Field(
        "1GB", pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$", description="DuckDB's memory limit; past it, it spills to disk."
    )

    batch_messages: int = Field(131_072, ge=1, description="The most offsets one batch may span.")
    batch_bytes: int = Field(128 * 2**20, ge=1, description="About the most bytes of values one batch may hold.")
    run_messages: int = Field(2_000_000, ge=1, description="A micro-batch run stops planning past this many offsets.")
    run_seconds: float = Field(120.0, gt=0, description="A micro-batch run stops planning past this many seconds.")
    run_every: Duration = Field(
        timedelta(seconds=12),
        description="How often a micro-batch run starts while it keeps up; shorter is fresher and costs CPU.",
    )
    retry_after: Duration = Field(
        timedelta(minutes=1),
        description="How long a sensor waits after a failed run; then twice, 4, 8 and at most 15 times that.",
    )
    adjust_every: Duration = Field(
        timedelta(minutes=15),
        description="How often at most closed days are corrected for messages that came late; all days in one run.",
    )
    max_message_bytes: int = Field(16 * 2**20, ge=1, description="A longer value is rejected as oversized.")
    max_event_age: Duration = Field(
        timedelta(days=400), description="How long before its Kafka timestamp an event may lie."
    )
    max_event_lead: Duration = Field(
        timedelta(hours=24), description="How long after its Kafka timestamp an event may lie."
    )

    max_file_bytes: int = Field(
        2**30, ge=1, description="A larger file of the inbox or of an import, packed or not, is refused."
    )

    max_rejected: float = Field(
        0.05, ge=0, le=1, description="The share of messages rejected in an hour or a day that is told as a failure."
    )

    bronze_days: int | None = Field(
        None, ge=1, description="Days that bronze is kept after archiving; unset: for ever."
    )
    archive: Folder = Field(None, description="Where bronze is copied before it is dropped.")
    payload_days: int | None = Field(None, ge=1, description="Days after which payloads and names are blanked.")
    webhook: SecretStr | None = Field(
        None,
        description='An http(s) address that is told what fails, as {"text": …}, which Slack and Mattermost take.',
    )
    alert_urls: SecretStr | None = Field(
        None,
        description="Addresses of apprise that are told what fails, separated by blanks: slack://…, workflows://… "
        "(Teams), mailtos://…, pagerduty://… and many more.",
    )

    serving_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host:5432/database of the serving copy; unset: there is none.",
    )
    serving_chatbot: bool = Field(
        False, description="Whether the serving copy has chatbot_reports too, which hold what people answered."
    )

    panel_key: SecretStr | None = Field(
        None,
        description="Signs the panel's tokens: a secret of 32 bytes or more, or a public key in PEM, which verifies "
        "what a platform signed with its private half; unset: a secret that is made once, in NOTIF_DATA/panel.key.",
    )
    panel_old_key: SecretStr | None = Field(
        None, description="The key before it, whose tokens are still good while keys are changed."
    )
    panel_url: str = Field("http://127.0.0.1:8000", description="Where people reach the panel; links begin with it.")
    panel_memory: str = Field("200MB", description="Memory of the panel's DuckDB; it spills to disk past it.")
    panel_exports: int = Field(10, ge=1, description="Exports that a customer or an operator may begin in a minute.")
    dagster_url: str = Field("http://127.0.0.1:3000", description="The Dagster UI that the operator's page links to.")

    @field_validator("panel_url", "dagster_url")
    @classmethod
    def _base_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("want an address that begins with http:// or https://")
        return value.rstrip("/")

    @field_validator("webhook")
    @classmethod
    def _web_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("want an address that begins with http:// or https://")
        return value

    @field_validator("alert_urls")
    @classmethod
    def _addresses(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all("://" in address for address in value.get_secret_value().split()):
            raise ValueError("want addresses of apprise like slack://…, separated by blanks")
        return value

    @field_validator("serving_url")
    @classmethod
    def _database_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("want an address that begins with postgresql://")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"no such time zone: {value}; use an IANA name like America/Sao_Paulo") from error
        return value

    @classmethod
    def variables(cls) -> set[str]:
        """The environment variables that are read."""
        return {variable(name, field) for name, field in cls.model_fields.items()}

    @property
    def lake(self) -> Path:
        """The folder of the tables."""
        return (self.lake_root or self.data / "lake").absolute()

    @property
    def inbox(self) -> Path:
        """The folder watched for files."""
        return (self.inbox_root or self.data / "inbox").absolute()

    @property
    def reports(self) -> Path:
        """The folder that closed days and months are written to."""
        return (self.reports_root or self.data / "reports").absolute()

    @property
    def zone(self) -> ZoneInfo:
        """The billing time zone."""
        return ZoneInfo(self.timezone)


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable that a field of Settings is read from."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"NOTIF_{name.upper()}"


def unknown_variables() -> list[str]:
    """A sentence for each NOTIF_… of the environment and of .env that is no setting, with the nearest that is one.

    The sentence does not show the value: it may be a secret.
    """
    known = Settings.variables()
    names = {name.upper() for name in (*os.environ, *dotenv_values(".env", verbose=False))}
    sentences = []
    for name in sorted(name for name in names - known if name.startswith("NOTIF_")):
        near = difflib.get_close_matches(name, known, 1)
        sentences.append(f"{name} is no setting" + (f": did you mean {near[0]}?" if near else ", and changes nothing"))
    return sentences
