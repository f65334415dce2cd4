"""Every setting of the sidecar in one frozen class, read from the environment with the prefix ``MTS_``.

What belongs here: hosts, routes, limits, intervals, symbols, depths and bounds, each with its unit and default.
Exchanges changed hosts and limits several times in 2026, so none of them is fixed in code. Names shared with the
rest of MTS (``MTS_HOME``, ``MTS_BINANCE_URL``, ``MTS_BYBIT_URL``) mean the same there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mts_realtime.errors import SettingsError

TextList = Annotated[tuple[str, ...], NoDecode]

ALL_SYMBOLS = "ALL"
"""Given as the only symbol: every trading USDT perpetual of each exchange."""


class RealtimeSettings(BaseSettings):
    """All settings of the sidecar. Frozen: a running process never sees two values of one setting."""

    model_config = SettingsConfigDict(
        env_prefix="MTS_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Path = Field(Path("data"), description="Folder that holds all state of this instance.")
    landing_dir: Path = Field(Path(), description="Folder of the segments. Default: landing/ in home.")

    exchanges: TextList = Field(("binance", "bybit"), description="Exchanges to connect to.")
    symbols: TextList = Field(
        ("BTCUSDT", "ETHUSDT", "BNBUSDT"), description="Instruments to follow; ALL follows every USDT perpetual."
    )
    symbol_aliases: TextList = Field((), description="Further renames, each OLD=NEW@YYYY-MM-DD.")
    instruments_refresh_s: float = Field(
        3600.0, gt=0, description="Pause between readings of the instruments lists, seconds."
    )

    binance_url: str = Field("https://fapi.binance.com", description="Binance USD-M futures REST root.")
    binance_ws_url: str = Field("wss://fstream.binance.com", description="Binance USD-M WebSocket host.")
    binance_public_route: str = Field("/public", description="Route of the book streams.")
    binance_market_route: str = Field("/market", description="Route of mark price and ticker streams.")
    binance_depth: Literal["partial", "diff"] = Field(
        "partial", description="Books from pictures of the top levels, or from a REST snapshot and updates."
    )
    binance_depth_levels: Literal[5, 10, 20] = Field(20, description="Levels a side of a partial depth picture.")
    binance_depth_interval_ms: Literal[0, 100, 250, 500] = Field(
        100, description="Push interval of the book streams; 0 only where the host offers it."
    )
    binance_snapshot_levels: Literal[5, 10, 20, 50, 100, 500, 1000] = Field(
        1000, description="Levels a side of the REST snapshot that diff depth starts from."
    )
    binance_streams_per_connection: int = Field(200, ge=1, le=1024, description="Most streams on a connection.")
    binance_messages_per_s: int = Field(5, ge=1, le=10, description="Messages sent per second and connection.")
    binance_connections_per_5min: int = Field(150, ge=1, description="New connections per 5 minutes.")
    binance_weight_per_minute: int = Field(1200, ge=1, description="REST weight per minute; the venue allows 2400.")
    binance_rotate_s: float = Field(
        23 * 3600.0, gt=0, le=24 * 3600.0, description="Age at which a connection is replaced; cut at 24 h."
    )
    binance_taker_fee_bps: float = Field(5.0, ge=0, description="Taker fee of your Binance tier, basis points.")

    bybit_url: str = Field("https://api.bybit.com", description="Bybit v5 REST root.")
    bybit_ws_url: str = Field("wss://stream.bybit.com/v5/public/linear", description="Bybit public linear WebSocket.")
    bybit_depth: Literal[1, 50, 200, 1000] = Field(50, description="Levels a side of the order book topic.")
    bybit_args_chars: int = Field(20_000, ge=100, le=21_000, description="Most characters of topics on a connection.")
    bybit_topics_per_request: int = Field(50, ge=1, description="Topics in one subscribe request.")
    bybit_messages_per_s: int = Field(10, ge=1, description="Messages sent per second and connection.")
    bybit_connections_per_5min: int = Field(250, ge=1, description="New connections per 5 minutes; 500 allowed.")
    bybit_requests_per_5s: int = Field(100, ge=1, description="REST requests per 5 s; the venue allows 600.")
    bybit_ping_s: float = Field(20.0, gt=0, description="Pause between pings to Bybit, seconds.")
    bybit_pong_timeout_s: float = Field(10.0, gt=0, description="Longest wait for Bybit's pong, seconds.")
    bybit_rotate_s: float = Field(
        7 * 24 * 3600.0, gt=0, description="Age at which a connection is replaced. Bybit names no limit."
    )
    bybit_taker_fee_bps: float = Field(5.5, ge=0, description="Taker fee of your Bybit tier, basis points.")

    clock_check_s: float = Field(600.0, gt=0, description="Pause between comparisons with the exchanges' clocks.")
    clock_alert_ms: float = Field(250.0, gt=0, description="Difference of clocks that is logged as a warning.")

    http_timeout_s: float = Field(10.0, gt=0, description="Longest REST call, seconds.")
    open_timeout_s: float = Field(10.0, gt=0, description="Longest WebSocket handshake, seconds.")
    close_timeout_s: float = Field(2.0, gt=0, description="Longest wait for the closing handshake, seconds.")
    frame_max_bytes: int = Field(4 * 2**20, ge=1024, description="Largest frame accepted, bytes.")
    backoff_base_s: float = Field(0.5, gt=0, description="First pause before a reconnect; doubles, with jitter.")
    backoff_cap_s: float = Field(60.0, gt=0, description="Longest pause before a reconnect, seconds.")
    subscribe_timeout_s: float = Field(
        10.0, gt=0, description="A topic without data this long after subscribing is asked for again."
    )
    silence_s: float = Field(30.0, gt=0, description="A topic silent this long is stale and is asked for again.")
    connection_silence_s: float = Field(
        15.0, gt=0, description="A connection on which nothing arrived this long is replaced."
    )
    dead_topic_retry_s: float = Field(
        600.0, gt=0, description="Longest pause between attempts at a topic that never answers."
    )
    handover_s: float = Field(60.0, gt=0, description="Longest overlap of the old and new connection in a rotation.")

    sample_interval_s: float = Field(1.0, gt=0, description="Grid of the sampled books, seconds.")
    sample_levels: int = Field(20, ge=1, le=1000, description="Levels a side of a sampled book.")
    flush_interval_s: float = Field(5.0, gt=0, description="Grid of the segments: most that a kill can lose.")
    landing_buffer_rows: int = Field(
        500_000, ge=100, description="Rows held while the disk is full; then books are shed and declared."
    )
    inbox_frames: int = Field(20_000, ge=100, description="Frames that may wait; above this books are shed.")
    conflate_frames: int = Field(
        5_000, ge=10, description="Waiting frames above which book pictures conflate to the latest."
    )
    quarantine_max_bytes: int = Field(10 * 2**20, ge=1024, description="Size of the quarantine file, bytes.")

    arbitrage_min_net_bps: float = Field(0.0, description="Net edge above which an opportunity opens, bps.")
    arbitrage_max_age_ms: float = Field(1500.0, gt=0, description="Oldest book that an opportunity may use.")
    arbitrage_max_skew_ms: float = Field(
        1000.0, gt=0, description="Largest difference of the two books' exchange times."
    )
    arbitrage_max_notional_usd: float = Field(
        100_000.0, gt=0, description="Largest size of an opportunity in quote currency."
    )
    spread_anomaly_z: float = Field(4.0, gt=0, description="Z-score of the spread that raises a signal.")
    volume_spike_z: float = Field(4.0, gt=0, description="Z-score of the volume flow that raises a signal.")
    imbalance_threshold: float = Field(0.7, gt=0, lt=1, description="Order-book imbalance that raises a signal.")
    funding_divergence_pct: float = Field(
        15.0, gt=0, description="Annualised funding difference that raises a signal, percent."
    )
    funding_holding_hours: float = Field(
        24.0, gt=0, description="Holding time for which the expected funding of a pair is stated, hours."
    )
    signal_window: int = Field(300, ge=10, description="Samples of the rolling statistics behind signals.")
    signal_ttl_s: float = Field(10.0, gt=0, description="Life of a signal and pause before it repeats, seconds.")

    feed_host: str = Field("127.0.0.1", description="Address of the live feed, health and metrics.")
    feed_port: int = Field(8765, ge=0, le=65535, description="Port of the live feed; 0 picks a free one.")
    feed_interval_ms: int = Field(100, ge=10, description="Pause between book messages of one symbol to clients.")
    feed_buffer_messages: int = Field(1000, ge=10, description="Messages that may wait for one client.")
    redis_url: str = Field("", description="Redis for latest values and signals; empty: no Redis.")
    redis_ttl_s: int = Field(60, ge=1, description="Life of a latest value in Redis, seconds.")
    drain_s: float = Field(8.0, gt=0, le=10, description="Longest drain after SIGTERM, seconds.")

    @field_validator("exchanges", "symbols", "symbol_aliases", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 - what the environment holds is not known yet
        if isinstance(value, str):
            return tuple(part.strip().strip("\"'") for part in value.strip("[] ").split(",") if part.strip())
        return value

    @field_validator("exchanges", mode="after")
    @classmethod
    def _known_exchanges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in ("binance", "bybit")]
        if unknown or not value:
            raise ValueError(f"allowed are binance and bybit, not {', '.join(unknown) or 'nothing'}")
        return tuple(dict.fromkeys(value))

    @field_validator("symbols", mode="after")
    @classmethod
    def _upper_symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one symbol, for instance BTCUSDT")
        return tuple(dict.fromkeys(symbol.upper() for symbol in value))

    @model_validator(mode="before")
    @classmethod
    def _derive_places(cls, values: Any) -> Any:  # noqa: ANN401 - raw input
        """Resolve ``home`` once, and place the landing folder below it unless it is set."""
        if isinstance(values, dict):
            home = Path(values.get("home") or "data").expanduser().resolve()
            landing = values.get("landing_dir")
            values = {**values, "home": home, "landing_dir": Path(landing) if landing else home / "landing"}
        return values

    @property
    def quarantine_file(self) -> Path:
        """Frames that could not be read, JSON lines, bounded."""
        return self.home / "quarantine" / "frames.jsonl"

    @property
    def taker_fees_bps(self) -> dict[str, float]:
        """Taker fee by exchange."""
        return {"binance": self.binance_taker_fee_bps, "bybit": self.bybit_taker_fee_bps}

    @property
    def sample_interval_ns(self) -> int:
        """Grid of the sampled books in nanoseconds."""
        return round(self.sample_interval_s * 1e9)

    @property
    def flush_interval_ns(self) -> int:
        """Grid of the segments in nanoseconds."""
        return round(self.flush_interval_s * 1e9)


def load_settings(**overrides: Any) -> RealtimeSettings:  # noqa: ANN401 - typed by the class itself
    """Read the settings.

    Raises:
        SettingsError: Naming the first wrong variable and what is allowed.
    """
    try:
        return RealtimeSettings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = "MTS_" + "_".join(str(part) for part in first["loc"]).upper()
        given = first.get("input")
        shown = ", ".join(map(str, given)) if isinstance(given, tuple) else given
        raise SettingsError(f"setting {name}: {first['msg'].removeprefix('Value error, ')} (got {shown!r})") from None
