"""Settings: which place wins, and errors that name the setting and where it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingestd import config
from ingestd.config import Settings
from ingestd.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A config file to be filled."""
    return tmp_path / "ingestd.toml"


def test_without_anything_the_defaults_hold() -> None:
    assert config.load({}, {"PATH": "/bin", "OTHER_LISTEN": "x"}, None) == Settings()


def test_the_defaults_are_the_published_ones() -> None:
    settings = Settings()
    assert (settings.listen, settings.data_dir, settings.ack) == ("127.0.0.1:8080", "./data", "fsync")
    assert settings.body_bytes_max == 10 * 1024 * 1024


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    file.write_text('listen = "file:1"\ndata_dir = "file"\nack = "write"\n')
    environ = {"INGESTD_LISTEN": "environment:1", "INGESTD_DATA_DIR": "environment"}
    settings = config.load({"listen": "flag:1"}, environ, file)
    assert (settings.listen, settings.data_dir, settings.ack) == ("flag:1", "environment", "write")
    assert settings.workers == Settings().workers


def test_text_from_flags_and_environment_becomes_numbers() -> None:
    settings = config.load(
        {"workers": "2"}, {"INGESTD_IDLE_TIMEOUT_S": "1.5", "INGESTD_ZSTD_LEVEL": "-7"}, None
    )
    assert (settings.workers, settings.idle_timeout_s, settings.zstd_level) == (2, 1.5, -7)


def test_a_whole_number_of_seconds_is_fine_in_a_file(file: Path) -> None:
    file.write_text("idle_timeout_s = 5\n")
    assert config.load({}, {}, file).idle_timeout_s == 5.0


OTHERS: dict[str, Any] = {
    "kafka_config_file": "f",
    "message_bytes_max": 70_000,
    "message_headers": "a=b",
    "message_key": "{userId}",
    "replicate_fallback": "fsync",
    "replicate_timeout_s": 7.0,
    "replicate_to": "nats://h/s",
    "admin": "h:2",
    "ack": "memory",
    "data_dir": "d",
    "listen": "h:1",
    "log_format": "json",
    "on_invalid": "skip",
    "log_level": "error",
    "request_log": True,
    "ship_admin": "h:3",
    "ship_key": "{name}-{sha256}",
    "ship_to": "s3://b",
    "tls_cert_file": "f",
    "tls_key_file": "f",
    "unix_socket_mode": "0600",
    "trusted_proxies": "10.0.0.0/8",
    "cors_origins": "https://shop.example",
    "workers": 2,
    "zstd_level": 5,
}


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_can_be_set_in_every_place(name: str, file: Path) -> None:
    value = OTHERS.get(name, 5000)
    file.write_text(f"{name} = {json.dumps(value)}\n")
    for settings in (
        config.load({name: str(value)}, {}, None),
        config.load({}, {f"INGESTD_{name.upper()}": str(value)}, None),
        config.load({}, {}, file),
    ):
        assert getattr(settings, name) == value != getattr(Settings(), name)


BAD: list[tuple[str, Any]] = [
    ("workers", 1025),
    ("workers", -1),
    ("ack", "Fsync"),
    ("ack", ""),
    ("log_format", "xml"),
    ("on_invalid", "keep"),
    ("replicate_fallback", "memory"),
    ("message_bytes_max", 64 * 1024 - 1),
    ("replicate_timeout_s", 16),
    ("unix_socket_mode", "0888"),
    ("unix_socket_mode", "66"),
    ("log_level", "loud"),
    ("zstd_level", 20),
    ("zstd_level", -8),
    ("body_bytes_max", 1023),
    ("body_bytes_max", 2**30 + 1),
    ("commit_bytes_max", 2**30 + 1),
    ("strict_bytes_max", -1),
    ("segment_age_max_s", 0),
    ("segment_age_max_s", 86401),
    ("idle_timeout_s", float("nan")),
    ("idle_timeout_s", float("inf")),
    ("ship_dedup_s", -1),
    ("ship_dedup_s", float("nan")),
    ("ship_dedup_s", float("inf")),
    ("ship_dedup_ids_max", 0),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_names_the_setting_and_its_place(name: str, value: Any, file: Path) -> None:
    def problem(flags: dict[str, Any], environ: dict[str, str], path: Path | None = None) -> str:
        with pytest.raises(UsageError) as raised:
            config.load(flags, environ, path)
        return str(raised.value)

    file.write_text(f"{name} = {value!r}\n")
    variable = f"INGESTD_{name.upper()}"
    assert problem({}, {}, file).startswith(f"{file}: {name}: {value!r} is not right: ")
    assert problem({}, {variable: str(value)}).startswith(f"{variable}: '{value}' is not right: ")
    assert problem({name: str(value)}, {}).startswith(f"--{name.replace('_', '-')}: '{value}' is not right: ")


@pytest.mark.parametrize(
    "text", ["workers = '2'", "workers = true", "workers = 2.5", "listen = 8080", "ack = ['fsync']"]
)
def test_a_value_of_the_wrong_type_in_a_file_is_an_error(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=rf"ingestd\.toml: {text.split()[0]}: .* is not right: "):
        config.load({}, {}, file)


@pytest.mark.parametrize("value", ["", " ", "two", "1_0", "0x2", "2.5"])
def test_text_that_is_no_whole_number_is_an_error(value: str) -> None:
    with pytest.raises(UsageError, match=r"^INGESTD_WORKERS: "):
        config.load({}, {"INGESTD_WORKERS": value}, None)


def test_an_unknown_setting_in_a_file_is_named_with_the_known_ones(file: Path) -> None:
    file.write_text("listn = 'x'\n")
    with pytest.raises(
        UsageError, match=r"ingestd\.toml: unknown setting 'listn'; the settings are: listen, data_dir"
    ):
        config.load({}, {}, file)


def test_an_unknown_variable_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"^unknown environment variable INGESTD_PORT; known are: INGESTD_LISTEN, "
    ):
        config.load({}, {"INGESTD_PORT": "80"}, None)


def test_a_bad_value_is_an_error_even_where_another_place_wins(file: Path) -> None:
    file.write_text("workers = -1\n")
    with pytest.raises(UsageError, match=r"ingestd\.toml: workers: "):
        config.load({"workers": "1"}, {}, file)


def test_a_file_that_is_not_toml_is_named(file: Path) -> None:
    for text in (b"listen", b"\xff\xfe"):
        file.write_bytes(text)
        with pytest.raises(UsageError, match=r"ingestd\.toml: not valid TOML: "):
            config.load({}, {}, file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^--config .*/none\.toml: No such file or directory; name a readable"
    ):
        config.load({}, {}, tmp_path / "none.toml")
    with pytest.raises(UsageError, match=r"^--config .*: Is a directory; name a readable"):
        config.load({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("90", 90), ("90s", 90), ("1.5m", 90), ("15m", 900), ("24h", 86400), ("7d", 604800)],
)
def test_a_duration_says_its_unit_or_means_seconds(text: str, expected: float) -> None:
    assert config.seconds(text, "--dedup") == expected


@pytest.mark.parametrize(
    "text", ["", "h", "-1h", "1 h", "1w", "1H", "1h30m", "1e9", "inf", "nan", "9" * 400, "٣h"]
)
def test_what_is_no_duration_is_an_error_that_names_the_flag(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--dedup: .* is not right: say a duration such as 90s, 15m, 24h"):
        config.seconds(text, "--dedup")
