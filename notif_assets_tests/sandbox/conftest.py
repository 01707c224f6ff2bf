"""Topics and clients for the tests of what stands in for Kafka: those of kafka/."""

from notif_assets_tests.kafka.conftest import fresh_topic, kafka_client

__all__ = ["fresh_topic", "kafka_client"]
