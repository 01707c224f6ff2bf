"""Topics and clients for the tests of what stands in for Kafka.

Belongs here: taking over the fixtures of kafka/. Doesn't: the fixtures themselves (kafka/conftest.py).
"""

from notif_assets_tests.kafka.conftest import fresh_topic, kafka_client

__all__ = ["fresh_topic", "kafka_client"]
