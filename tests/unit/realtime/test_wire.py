"""The tolerant decoder: what is unknown is counted, what is missing or mistyped is refused."""

from __future__ import annotations

import pytest
from msgspec import Struct

from mts_realtime.errors import FrameError
from mts_realtime.exchanges.wire import CENSUS_PERIOD, TolerantDecoder, UnknownFields, WireLevels, parse_number


class _Inner(Struct, kw_only=True):
    levels: WireLevels
    note: str = ""


class _Outer(Struct, kw_only=True):
    topic: str
    data: _Inner


@pytest.fixture
def unknown() -> UnknownFields:
    return UnknownFields()


@pytest.fixture
def decoder(unknown: UnknownFields) -> TolerantDecoder[_Outer]:
    return TolerantDecoder("venue", "outer", _Outer, unknown)


GOOD = b'{"topic":"t","data":{"levels":[["1.5","2"]]}}'
GROWN = b'{"topic":"t","data":{"levels":[["1.5","2"]],"st":1}}'


def test_text_prices_become_floats(decoder: TolerantDecoder[_Outer]) -> None:
    """Prices and sizes are parsed while decoding."""
    assert decoder.decode(GOOD).data.levels == [(1.5, 2.0)]


def test_unknown_member_is_counted_and_skipped(decoder: TolerantDecoder[_Outer], unknown: UnknownFields) -> None:
    """A new member costs nothing but a count under its path."""
    assert decoder.decode(GROWN).data.levels == [(1.5, 2.0)]
    assert unknown == {("outer", "data.st"): 1}


def test_census_goes_on_after_the_first_unknown_member(
    decoder: TolerantDecoder[_Outer], unknown: UnknownFields
) -> None:
    """Further frames are looked at once a period, so a lasting new member stays visible without its cost."""
    for _ in range(2 * CENSUS_PERIOD):
        decoder.decode(GROWN)
    assert sum(unknown.values()) == 2


@pytest.mark.parametrize(
    "raw",
    [
        b'{"topic":"t","data":{}}',
        b'{"topic":"t","data":{"levels":[["1.5"]]}}',
        b'{"topic":"t","data":{"levels":[["-1","2"]]}}',
        b'{"topic":"t","data":{"levels":[["1","-2"]]}}',
        b'{"topic":"t","data":{"levels":[["nan","2"]]}}',
        b'{"topic":"t","data":{"levels":[["inf","2"]]}}',
        b'{"topic":"t","data":{"levels":[["x","2"]]}}',
        b'{"topic":5,"data":{"levels":[]}}',
        b'{"topic":"t","data"',
        b"",
        b'{"topic":"\xff","data":{"levels":[]}}',
        b'{"topic":"t","data":{"levels":[["x","2"]],"st":1}}',
    ],
)
def test_broken_frame_is_refused(decoder: TolerantDecoder[_Outer], raw: bytes) -> None:
    """Missing, mistyped and malformed frames all end as FrameError naming the exchange and the frame type."""
    with pytest.raises(FrameError, match=r"^venue sent a frame that cannot be read: outer: "):
        decoder.decode(raw)


def test_empty_text_is_no_number() -> None:
    """An empty text means that there is no value, never zero."""
    assert parse_number("venue", "rate", "") is None
    assert parse_number("venue", "rate", "-0.0001") == -0.0001


@pytest.mark.parametrize("text", ["abc", "nan", "inf"])
def test_text_that_is_no_finite_number_is_refused(text: str) -> None:
    """Only finite numbers pass."""
    with pytest.raises(FrameError, match="rate is"):
        parse_number("venue", "rate", text)
