"""Which client reads Kafka here, and opening it.

Belongs here: the choice that NOTIF_KAFKA_CLIENT makes. Doesn't: what a client can do (client.py), how one does it
(confluent_client.py, python_client.py), which are imported only when chosen.
"""

from importlib.util import find_spec

from notif_assets.kafka.client import KafkaClient, KafkaError
from notif_assets.settings import Settings


def client_name(settings: Settings) -> str:
    """`confluent` or `kafka-python`: what `settings.kafka_client` comes to here."""
    if settings.kafka_client == "auto":
        return "confluent" if find_spec("confluent_kafka") else "kafka-python"
    if settings.kafka_client == "confluent" and not find_spec("confluent_kafka"):
        raise KafkaError("confluent-kafka isn't installed: install the extra `notif-assets[librdkafka]`")
    return settings.kafka_client


def open_client(settings: Settings) -> KafkaClient:
    """The client that `settings.kafka_client` names, not yet connected; use it in a `with`."""
    if client_name(settings) == "confluent":
        from notif_assets.kafka.confluent_client import ConfluentClient

        return ConfluentClient(settings)
    from notif_assets.kafka.python_client import PythonClient

    return PythonClient(settings)
