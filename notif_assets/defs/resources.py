"""What assets, sensors and schedules are given, as Dagster's Resources page shows it.

Belongs here: the fields of each resource with what they mean, and which values no page shows. Doesn't: what a lake or a
client of Kafka does (lake/, kafka/), what a setting means (settings.py).

Dagster shows the fields of a resource to everybody who reaches its UI, and keeps them with the jobs in its storage. So
no secret is a field: where one stands there are stars, and the value itself comes from the settings of the process.
"""

import json
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster_duckdb import DuckDBResource
from pydantic import Field, SecretStr

from notif_assets.errors import Refusal
from notif_assets.kafka.client import OpenClient
from notif_assets.kafka.open import open_client
from notif_assets.lake import Lake, duckdb_config
from notif_assets.notifications.bronze import AdvanceBronze
from notif_assets.settings import Settings, variable

_STARS: Final = str(SecretStr("any"))
_SHOWN_PROPERTIES: Final = frozenset(
    {
        "client.id",
        "client.rack",
        "enable.ssl.certificate.verification",
        "sasl.mechanism",
        "sasl.mechanisms",
        "security.protocol",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
    }
)
"""The properties of Kafka that are known to hold no secret. Of any other only the name is shown."""

_PATIENCE_OF_A_TICK: Final = 3.0
"""Seconds that a sensor waits for Kafka: ten seconds later comes the next tick."""


class SettingRefused(Refusal):
    """A run was given other settings than its deployment has."""


class SettingsResource(dg.ConfigurableResource[Settings]):
    """The settings of this deployment, as its environment and its .env file have them. They hold for every run;
    docs/reference/settings.md says what each means."""

    values: dict[str, str] = Field(
        description="What each variable comes to. A secret is shown as stars, and what is unset not at all."
    )
    deployed: dg.ResourceDependency[Settings]

    def create_resource(self, context: dg.InitResourceContext) -> Settings:  # noqa: ARG002 - Dagster gives it
        """The settings themselves. Raises SettingRefused for others: what is not a setting here would not follow."""
        here = shown(self.deployed)
        changed = sorted(name for name in {*here, *self.values} if here.get(name) != self.values.get(name))
        if changed:
            raise SettingRefused(
                f"a run can't have settings of its own ({', '.join(changed)}): set them for the deployment, in its "
                "environment or its .env"
            )
        return self.deployed


class LakeResource(dg.ConfigurableResource[Lake]):
    """The lake: its tables, and the engine that runs the SQL files over them."""

    root: str = Field(description="The folder of the Delta tables (NOTIF_LAKE), a folder for each.")
    duckdb: DuckDBResource

    def create_resource(self, context: dg.InitResourceContext) -> Lake:  # noqa: ARG002 - Dagster gives it
        """The lake of this process."""
        return _lake(self.root, self.duckdb.database, json.dumps(self.duckdb.connection_config, sort_keys=True))


@lru_cache(maxsize=1)
def _lake(root: str, database: str, connection_config: str) -> Lake:
    """Kept from one tick or run to the next: to open the engine and to read the logs again takes longer than a tick."""
    engine = DuckDBResource(database=database, connection_config=json.loads(connection_config))
    return Lake(Path(root), engine.get_connection)


class KafkaResource(dg.ConfigurableResource[OpenClient]):
    """The topic of the notifications. It opens clients that read committed records, belong to no consumer group and
    commit nothing."""

    bootstrap: str = Field(description="host:port of one or more brokers, comma separated (NOTIF_KAFKA_BOOTSTRAP).")
    topic: str = Field(description="The topic (NOTIF_TOPIC).")
    client: str = Field(description="Which client reads: auto, kafka-python or confluent (NOTIF_KAFKA_CLIENT).")
    timeout: float = Field(description="Seconds without an answer or a record before a read gives up.")
    properties: dict[str, str] = Field(
        description="Kafka's own client properties (NOTIF_KAFKA_PROPERTIES). A value that may be a secret is shown as "
        "stars."
    )
    settings: dg.ResourceDependency[Settings]

    def create_resource(self, context: dg.InitResourceContext) -> OpenClient:  # noqa: ARG002 - Dagster gives it
        """What opens a client; nothing is connected before that."""
        known = self.settings.kafka_properties
        given = {name: SecretStr(value) for name, value in self.properties.items()}
        hidden = {name: known[name] for name, value in self.properties.items() if value == _STARS and name in known}
        kafka_settings = {
            "kafka_bootstrap": self.bootstrap,
            "topic": self.topic,
            "kafka_client": self.client,
            "kafka_timeout": self.timeout,
            "kafka_properties": given | hidden,
        }
        return partial(open_client, self.settings.model_copy(update=kafka_settings))


class ImpatientKafkaResource(KafkaResource):
    """The same topic for a sensor, which only looks and does not wait for Kafka."""


def resources_of(settings: Settings, take_batches: AdvanceBronze) -> dict[str, Any]:
    """The resources of one deployment. Nothing is opened; `take_batches` is how a run gets its batches."""
    duckdb = DuckDBResource(database=":memory:", connection_config=duckdb_config(settings.engine_memory))
    of_settings = SettingsResource(values=shown(settings), deployed=settings)
    topic: dict[str, Any] = {
        "bootstrap": settings.kafka_bootstrap,
        "topic": settings.topic,
        "client": settings.kafka_client,
        "properties": _shown_properties(settings.kafka_properties),
        "settings": of_settings,
    }
    return {
        "settings": of_settings,
        "duckdb": duckdb,
        "lake": LakeResource(root=str(settings.lake), duckdb=duckdb),
        "kafka": KafkaResource(**topic, timeout=settings.kafka_timeout),
        "impatient_kafka": ImpatientKafkaResource(**topic, timeout=_PATIENCE_OF_A_TICK),
        "advance_bronze": dg.ResourceDefinition.hardcoded_resource(
            take_batches, "How a run takes batches of the topic: one after the other, or read ahead by `ingest`."
        ),
    }


def shown(settings: Settings) -> dict[str, str]:
    """What may be shown of each setting that is set, by its variable: secrets are stars."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        variable(name, field): value if isinstance(value, str) else json.dumps(value)
        for name, field in Settings.model_fields.items()
        if (value := values.get(name)) is not None
    }


def _shown_properties(properties: Mapping[str, SecretStr]) -> dict[str, str]:
    return {
        name: value.get_secret_value() if name.replace("_", ".") in _SHOWN_PROPERTIES else _STARS
        for name, value in properties.items()
    }
