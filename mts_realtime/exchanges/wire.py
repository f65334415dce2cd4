"""Decoding shared by the exchanges' wire types.

What belongs here: constrained number types, and the tolerant decoder that counts unknown members and refuses
missing or mistyped ones. No exchange's field names.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from mts_realtime.errors import FrameError

T = TypeVar("T")

LARGEST = 1e15
"""No price or size of a contract comes near; infinity and NaN are refused with it."""

Price = Annotated[float, Meta(gt=0, le=LARGEST)]
Size = Annotated[float, Meta(ge=0, le=LARGEST)]
WireLevels = list[tuple[Price, Size]]
"""``[["price", "size"], ...]``: text on the wire, parsed to float64 once, while decoding."""

Ignored = Any
"""A member that is known and not used: it may have any type."""

CENSUS_PERIOD = 256
"""Once a frame type showed an unknown member, only every so many frames of it are looked at for further ones."""

_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`(?: - at `\$?([^`]*)`)?")


def parse_number(exchange: str, what: str, text: str) -> float | None:
    """A number sent as text; ``None`` for an empty text, which means that there is no value.

    Raises:
        FrameError: When the text is not a finite number.
    """
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FrameError(exchange, f"{what} is {text!r}, not a number")
    return number


class UnknownFields(dict[tuple[str, str], int]):
    """How often a member that we do not know was seen, by frame type and path."""

    def add(self, frame_type: str, error: msgspec.ValidationError) -> bool:
        """Count the member that the error names; False when the error is about something else."""
        match = _UNKNOWN_FIELD.search(str(error))
        if match is None:
            return False
        name, path = match.groups()
        key = (frame_type, f"{path or ''}.{name}".removeprefix("."))
        self[key] = self.get(key, 0) + 1
        return True


class TolerantDecoder(Generic[T]):
    """Decode frames of one type: unknown members are counted, a missing or mistyped member is an error.

    A decoder that forbids unknown members costs no more than one that skips them, so it goes first. Payloads grow
    new members all the time: after the first one, the forgiving decoder goes first and the census is taken on every
    ``CENSUS_PERIOD``-th frame, so that a new member never halves the speed.
    """

    def __init__(self, exchange: str, frame_type: str, wire: type[T], unknown: UnknownFields) -> None:
        self.exchange = exchange
        self.frame_type = frame_type
        self.unknown = unknown
        self._forgiving = msgspec.json.Decoder(wire, strict=False)
        self._forbidding: msgspec.json.Decoder[T] = msgspec.json.Decoder(_forbidding(wire), strict=False)
        self._until_census = 0

    def decode(self, raw: bytes) -> T:
        """Decode one frame.

        Raises:
            FrameError: When it is not JSON, or a required member is missing or mistyped.
        """
        try:
            if self._until_census:
                self._until_census -= 1
                return self._forgiving.decode(raw)
            try:
                return self._forbidding.decode(raw)
            except msgspec.ValidationError as error:
                if self.unknown.add(self.frame_type, error):
                    self._until_census = CENSUS_PERIOD - 1
                return self._forgiving.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(self.exchange, f"{self.frame_type}: {error}") from None


def _forbidding(wire: Any) -> Any:  # noqa: ANN401 - any type that msgspec decodes
    """The same wire type with unknown members forbidden, nested types included."""
    if not (isinstance(wire, type) and issubclass(wire, Struct)):
        return wire
    fields: list[Any] = []
    renames: dict[str, str] = {}
    for field in msgspec.structs.fields(wire):
        default = () if field.required else (field.default,)
        fields.append((field.name, _forbidding(field.type), *default))
        renames[field.name] = field.encode_name
    return msgspec.defstruct(
        wire.__name__, fields, bases=(wire,), forbid_unknown_fields=True, gc=False, kw_only=True, rename=renames
    )
