"""What Prometheus is told.

Belongs here: the panel's own counters, and the state of the lake as the panel sees it. Doesn't: anything of a single
customer.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from notif_assets.notifications import queries
from notif_assets.panel.snapshot import Panel

REQUESTS = Counter("notif_panel_requests", "Requests.", ("method", "route", "status"), registry=None)
SECONDS = Histogram(
    "notif_panel_request_seconds",
    "Time to the end of an answer.",
    ("route",),
    registry=None,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
EXPORTS = Gauge("notif_panel_exports_in_progress", "Exports that are being sent.", registry=None)
EXPORTED = Counter("notif_panel_exported_bytes", "Bytes of exports.", registry=None)


class _State(Collector):
    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Asked at every scrape."""
        overview = self._panel.overview
        if overview.updated_at is not None:
            yield GaugeMetricFamily(
                "notif_counted_until_timestamp_seconds",
                "All messages up to here are counted.",
                overview.updated_at.timestamp(),
            )
        if batch := queries.newest_batch(self._panel.lake):
            yield GaugeMetricFamily(
                "notif_kafka_lag", "Offsets that the newest batch left in Kafka, when it was planned.", batch.lag
            )
            yield GaugeMetricFamily(
                "notif_kafka_lag_timestamp_seconds", "When the newest batch was planned.", batch.planned_at.timestamp()
            )
        yield GaugeMetricFamily("notif_customers", "Known customers.", len(overview.customers))
        today = sum(overview.customers.per_channel().values())
        yield GaugeMetricFamily("notif_notifications_today", "Messages of the day counted so far.", today)
        yield GaugeMetricFamily("notif_panel_table_version", "Version of customer_panel.", overview.version)


def exposition(panel: Panel) -> bytes:
    """The text format of Prometheus."""
    registry = CollectorRegistry()
    for metric in (REQUESTS, SECONDS, EXPORTS, EXPORTED, _State(panel)):
        registry.register(metric)
    return generate_latest(registry)
