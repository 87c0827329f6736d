"""/metrics of the shipper, as prometheus-client's families."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as BaseCollector

from ingestd.ship.shipper import Shipper

_PREFIX = "ingestd_ship_"


class Collector(BaseCollector):
    """Reads the shipper's own numbers when somebody asks."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Everything, in the order in which it is shown."""
        shipper, tally = self._shipper, self._shipper.tally
        for name, text, value in (
            (
                "lag_seconds",
                "Age of the oldest sealed segment that is not delivered; 0 if all are.",
                shipper.lag_s,
            ),
            ("behind_segments", "Sealed segments that are not delivered.", len(shipper.behind)),
            ("behind_bytes", "Their bytes.", shipper.bytes_behind),
            ("ready", "1 if the destination took what it was sent last.", not shipper.problem),
        ):
            yield GaugeMetricFamily(_PREFIX + name, text, value)
        if shipper.seen is not None:
            yield GaugeMetricFamily(
                _PREFIX + "dedup_reach_seconds",
                "With --dedup: how far back repeats are known; less than was asked for if ship_dedup_ids_max "
                "are fewer.",
                shipper.seen.reach_s,
            )
        for name, text, count in (
            ("segments", "Segments that are delivered, by the destination's word.", tally.segments_delivered),
            ("bytes", "Their bytes.", tally.bytes_delivered),
            ("found_segments", "Of these segments: those that were there already.", tally.segments_found),
            ("events", "Of these segments: events that were sent to a log.", tally.events_sent),
            (
                "dropped_events",
                "Events that were left out, for they are there already (--dedup).",
                tally.events_dropped,
            ),
            ("retries", "Deliveries that failed and are tried again.", tally.retries),
            ("gone_segments", "Segments that were deleted before they were delivered.", tally.segments_gone),
        ):
            yield CounterMetricFamily(_PREFIX + name, text, count)
