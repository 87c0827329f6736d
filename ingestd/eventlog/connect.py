"""A log by its address: the only place that knows which client speaks to which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ingestd.config import Settings
from ingestd.eventlog.address import Address
from ingestd.eventlog.log import EventLog


def connect(address: Address, settings: Settings, environ: Mapping[str, str]) -> EventLog:
    """Have a client of the log; it need not be there yet. Raises UsageError."""
    if address.scheme == "kafka":
        # What one of the two imports, the other does not need.
        from ingestd.eventlog.kafka import Kafka, properties

        config = properties(Path(settings.kafka_config_file)) if settings.kafka_config_file else {}
        return Kafka(address, config, settings.message_bytes_max)
    from ingestd.eventlog.jetstream import JetStream

    return JetStream(address, environ, settings.message_bytes_max)
