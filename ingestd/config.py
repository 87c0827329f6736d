"""Every setting: its default, its unit and its reason, in one Struct.

Flags win over the environment (`INGESTD_…`), which wins over `--config FILE` (TOML), which
wins over the defaults. An unknown or bad value is an error that names the setting and where
it stands.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from ingestd.errors import UsageError

AckLevel = Literal["fsync", "write", "memory", "replicated"]
Fallback = Literal["refuse", "fsync"]
OnInvalid = Literal["reject", "skip"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Bytes = Annotated[int, Meta(ge=1024)]
FrameBytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
"""A trailer has 32 bits for the bytes of a commit, and the stamps can make a body 3.7 times as long."""
Seconds = Annotated[float, Meta(gt=0, le=86400)]

ENV_PREFIX = "INGESTD_"
MESSAGE_HEAD_BYTES_MAX = 16 * 1024
"""What key, headers and messageId may add to a line in a log: `eventlog.messages` bounds each."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One running server's settings. Durations are seconds, sizes are bytes."""

    listen: str = "127.0.0.1:8080"
    """HOST:PORT, tls:HOST:PORT or unix:PATH, several parted by commas. Loopback by default: opening it to
    a network is a decision."""
    data_dir: str = "./data"
    """Where keys and segments live; one instance at a time (flock)."""
    admin: str = ""
    """HOST:PORT or unix:PATH of /metrics, /healthz and /readyz for all workers; empty: there is none. Off by
    default: what it tells is not for everybody, and no start may fail for a port that nobody asked for."""
    ack: AckLevel = "fsync"
    """What a 200 means: on stable storage, handed to the kernel, in the ring, or handed to the kernel and
    acknowledged by the log at replicate_to."""
    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Worker processes, each with its own core, ring and open segment; 0: one per core it may use."""

    unix_socket_mode: Annotated[str, Meta(pattern=r"^0?[0-7]{3}\Z")] = "0660"
    """Who may connect to unix sockets, as chmod says it."""
    tls_cert_file: str = ""
    """PEM: the certificate for tls: addresses, then those that vouch for it."""
    tls_key_file: str = ""
    """PEM: its private key, without a password. SIGHUP reads both files again."""
    tls_handshake_timeout_s: Seconds = 10.0
    """How long a client of a tls: address may take to shake hands; connections that do count as well."""

    body_bytes_max: FrameBytes = 10 * 1024 * 1024
    """Largest uncompressed body; 10 MiB, so that '10 MB' passes in either reading."""
    on_invalid: OnInvalid = "reject"
    """What becomes of an array with invalid events, unless it says itself (`?on_invalid=`): nothing of it is
    stored, or the valid events are, and the invalid ones are listed and set aside."""
    strict_bytes_max: Annotated[int, Meta(ge=0)] = 64 * 1024
    """Bodies up to this size are also checked for valid JSON that some reader refuses
    (nested repeated names, numbers beyond a double, nesting beyond 100)."""
    header_bytes_max: Bytes = 16 * 1024
    """Request line and headers together; nginx and Apache allow 8 KiB a line."""
    header_count_max: Count = 100
    """Header lines of one request; the same as Apache's LimitRequestFields."""
    target_bytes_max: Count = 2048
    """Request target; the API's own targets have 14 bytes."""

    connections_max: Count = 20_000
    """Open connections; one more is answered 503 and closed."""
    inflight_bytes_max: Bytes = 256 * 1024 * 1024
    """Bodies being received, uncompressed, of all connections together; large ones wait for room in
    seven eighths of it, and what goes over it gets 429."""
    room_timeout_s: Seconds = 10.0
    """How long a large body waits for that room before it gets 429."""
    pipeline_max: Count = 128
    """Unanswered requests of one connection before it is no longer read."""
    ring_batches_max: Count = 16_384
    """Batches that wait for the flusher; over it: 429. A power of two is not needed."""
    ring_bytes_max: Bytes = 128 * 1024 * 1024
    """Bytes of lines that wait for the flusher; over it: 429."""

    header_timeout_s: Seconds = 10.0
    """From the first byte of a request to the end of its headers."""
    request_timeout_s: Seconds = 60.0
    """From the first byte of a request to its last."""
    idle_timeout_s: Seconds = 75.0
    """A kept-alive connection without a request; longer than most load balancers' 60 s."""
    write_timeout_s: Seconds = 30.0
    """A client that does not read its answer."""
    drain_timeout_s: Seconds = 30.0
    """At shutdown: how long requests in flight may take to finish."""

    cors_origins: str = ""
    """Whose pages may send and read the answers: origins such as https://shop.example, parted by commas, or
    * for all; empty: none."""

    segment_bytes_max: Bytes = 64 * 1024 * 1024
    """A segment is sealed when it has grown to this size (compressed)."""
    segment_age_max_s: Seconds = 60.0
    """A segment is sealed when it is this old, so that readers see data soon."""
    commit_bytes_max: FrameBytes = 8 * 1024 * 1024
    """Lines that go into one frame; a larger batch makes a frame of its own."""
    disk_reserve_bytes: Annotated[int, Meta(ge=0)] = 256 * 1024 * 1024
    """Requests get 429 while less than this is free: room for what was accepted, and for sealing it."""
    retain_age_s: Annotated[float, Meta(ge=0)] = 0
    """Sealed segments that were written longer ago are deleted; 0: none are."""
    retain_bytes: Annotated[int, Meta(ge=0)] = 0
    """The oldest sealed segments are deleted while all together are larger than this; 0: none are."""
    zstd_level: Annotated[int, Meta(ge=-7, le=19)] = 1
    """Measured on frames of 60 small events: level 3 takes 1.3x the CPU of level 1 and saves nothing;
    on frames of 16 large ones it saves 3 %."""

    log_format: LogFormat = "text"
    """Lines on stderr for people, or JSON; under journald each begins with its level."""
    log_level: LogLevel = "info"
    """The least that is logged."""
    request_log: bool = False
    """A line for each request, with what it asked for, how it ended and who sent it."""
    error_log_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 10
    """Lines about refused requests in a second, for each worker, and one at least for each `code`; what is
    left out is counted. 0: none."""
    trusted_proxies: str = ""
    """Networks, parted by commas, and 'unix' for unix sockets: whom a proxy from there names in
    X-Forwarded-For, or in Forwarded, is logged as the peer."""

    ship_to: str = ""
    """Where `ingestd ship` delivers sealed segments: s3://BUCKET/PREFIX, gs://…, az://…, file:///FOLDER; or
    their events: kafka://HOST:PORT/TOPIC, nats://HOST:PORT/SUBJECT. Credentials come from the environment,
    never from here."""
    ship_key: str = "date={date}/hour={hour}/{name}-{sha256}.ndjson.zst"
    """An object's name below that; {node} is another word for it. {name} and {sha256}, of the content, must
    be in it, so that it can stand for one segment only."""
    ship_bytes_per_s: Annotated[int, Meta(ge=0)] = 0
    """What `ingestd ship` sends on average; 0: no limit."""
    ship_timeout_s: Seconds = 60.0
    """How long the store may take for a request, and once more for each 8 MiB that it is sent."""
    ship_dedup_s: Annotated[float, Meta(ge=0, le=366 * 86400)] = 0
    """Events whose messageId was delivered within this time are left out by `ingestd ship`; 0: none are.
    Not less than segment_age_max_s."""
    ship_dedup_ids_max: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 10_000_000
    """How many of them it remembers at most: some 26 bytes each. The oldest are forgotten."""
    ship_admin: str = ""
    """HOST:PORT or unix:PATH of the shipper's own /metrics, /healthz and /readyz; empty: there is none."""

    replicate_to: str = ""
    """With ack = replicated: the log that acknowledges each commit, kafka://HOST:PORT/TOPIC or
    nats://HOST:PORT/SUBJECT. Credentials as for `ingestd ship`."""
    replicate_timeout_s: Annotated[float, Meta(gt=0, le=15)] = 5.0
    """How long the log may take for a commit; then it counts as away until it answers again."""
    replicate_fallback: Fallback = "refuse"
    """While the log is away: events get 429, or are kept with ack = fsync, which each answer and
    /metrics say."""
    message_key: str = "{messageId}"
    """The key of an event's message in Kafka, which chooses its partition: text with fields of the event,
    such as {userId}; where it comes to nothing there is no key."""
    message_headers: str = "source={source}"
    """Headers of an event's message, in Kafka and NATS: name=text, several parted by commas. Its messageId
    has a header in any case."""
    message_bytes_max: Annotated[int, Meta(ge=64 * 1024, le=1 << 30)] = 1_000_000
    """Largest message that the log takes: not above Kafka's max.message.bytes, NATS' max_payload."""
    kafka_config_file: str = ""
    """More properties of librdkafka, name=value a line: security.protocol, sasl.username and the like. Its
    secrets are for its owner to read only."""

    @property
    def event_bytes_max(self) -> int:
        """What one event may have as it is kept; 0: as much as its body may."""
        return self.message_bytes_max - MESSAGE_HEAD_BYTES_MAX if self.ack == "replicated" else 0


_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)")
_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

_FIELDS: dict[str, Any] = get_type_hints(Settings, include_extras=True)


def load(flags: Mapping[str, Any], environ: Mapping[str, str], config_file: Path | None) -> Settings:
    """Merge flags over environment over file over defaults.

    `flags` holds only what was given on the command line. Raises UsageError.
    """
    merged: dict[str, Any] = {}
    if config_file is not None:
        merged.update(_from_file(config_file))
    merged.update(_from_environ(environ))
    for name, value in flags.items():
        merged[name] = _convert(name, value, f"--{name.replace('_', '-')}", strict=False)
    return Settings(**merged)


def seconds(text: str, flag: str) -> float:
    """A duration such as 90s, 15m, 24h, 7d, or plain seconds. Raises UsageError that names the flag."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{flag}: {text!r} is not right: say a duration such as 90s, 15m, 24h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as f:
            table = tomllib.load(f)
    except OSError as e:
        raise UsageError(f"--config {path}: {e.strerror}; name a readable TOML file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: not valid TOML: {e}") from e
    for name in table:
        if name not in _FIELDS:
            raise UsageError(f"{path}: unknown setting '{name}'; the settings are: {', '.join(_FIELDS)}")
    return {name: _convert(name, value, f"{path}: {name}", strict=True) for name, value in table.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        name = variable[len(ENV_PREFIX) :].lower()
        if name not in _FIELDS:
            names = ", ".join(ENV_PREFIX + field.upper() for field in _FIELDS)
            raise UsageError(f"unknown environment variable {variable}; known are: {names}")
        found[name] = _convert(name, value, variable, strict=False)
    return found


def _convert(name: str, value: Any, where: str, *, strict: bool) -> Any:
    """Flags and variables are text ('8' is 8); a file's values must have the right TOML type."""
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{where}: {value!r} is not right: it has a NUL byte")
    try:
        return msgspec.convert(value, _FIELDS[name], strict=strict)
    except msgspec.ValidationError as e:
        raise UsageError(f"{where}: {value!r} is not right: {e}") from None
