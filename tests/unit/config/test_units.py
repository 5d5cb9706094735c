"""Durations, sizes and addresses as people write them."""

import pytest

from castlegate.config.addresses import parse_address, parse_origin
from castlegate.config.shapes import shape_of
from castlegate.config.units import Seconds, Size, Unit, write_bytes, write_seconds


def unit_of(annotation: object) -> Unit:
    unit = shape_of(annotation).unit
    assert unit is not None
    return unit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("800ms", 0.8),
        ("2s", 2.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("250us", 0.00025),
        (" 2 s ", 2.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert unit_of(Seconds).parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 65536), ("10MiB", 10485760), ("1.5KiB", 1536), ("1KB", 1000), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert unit_of(Size).parse(text) == size


@pytest.mark.parametrize("text", ["2", "2 parsecs", "-2s", "", "s", "2KiB", "1e3s", "٢s", "2s2s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        unit_of(Seconds).parse(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2", "2s or 2000ms"),
        ("1500", "1500ms or 1.5s"),
        ("2sec", "2s"),
        ("10 Minutes", "10m"),
        ("2 parsecs", None),
        ("x", None),
    ],
)
def test_what_was_probably_meant(text: str, meant: str | None) -> None:
    assert unit_of(Seconds).meant(text) == meant


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.8, "800ms"), (10.0, "10s"), (90.0, "90s"), (3600.0, "1h"), (0.0005, "0.0005s")]
)
def test_durations_are_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert write_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(65536, "64KiB"), (10 * 2**20, "10MiB"), (1_000_000, "1MB"), (1001, "1001B"), (0, "0B")]
)
def test_sizes_are_written_in_the_largest_whole_unit(size: int, text: str) -> None:
    assert write_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("kafka_1.x:9", ("kafka_1.x", 9)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://users:8000", ("users", 8000, False)),
        ("http://users", ("users", 80, False)),
        ("https://users", ("users", 443, True)),
        ("https://users:80", ("users", 80, True)),
        ("http://[::1]:81/", ("::1", 81, False)),
        ("http://[::1]", ("::1", 80, False)),
    ],
)
def test_origins(text: str, origin: tuple[str, int, bool]) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text", ["", "http://", "http://:80", "http://a b", "http://[::1", "http://a:b", "http://a:99999", "http://a\n"]
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError):
        parse_origin(text)


def test_a_duration_that_nobody_can_mean_is_refused() -> None:
    with pytest.raises(ValueError, match="anyone could mean"):
        shape_of(Seconds).unit.parse("9" * 400 + "d")  # type: ignore[union-attr]
