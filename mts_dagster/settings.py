"""Every setting of MTS in one typed, frozen class, read from the environment with the prefix ``MTS_``.

What belongs here: values that a user may want to change without touching code, with unit and default. Lists are
given as JSON or as comma separated text. A ``.env`` file in the working folder is read too; the environment wins.
Nothing else in the project reads the environment.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from mts_dagster.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent

TextList = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """All settings. Frozen: a running process never sees two values of one setting."""

    model_config = SettingsConfigDict(
        env_prefix="MTS_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Path = Field(Path("data"), description="Folder that holds all state of this instance.")
    catalog: str = Field("", description="Catalog: sqlite:FILE or postgres:CONNINFO. Default: lake.sqlite in home.")
    data_path: str = Field("", description="Folder or s3:// prefix of the Parquet files. Default: lake/ in home.")
    lock_wait_s: float = Field(60.0, gt=0, description="Longest wait for the writer lock, seconds.")
    snapshot_keep_days: float = Field(
        30.0, gt=0, description="Maintenance forgets snapshots older than this, except those that are referred to."
    )
    file_keep_days: float = Field(
        2.0, gt=0, description="Files that nothing needs stay this long; must be longer than the longest query."
    )
    duckdb_memory_limit: str = Field("2GB", description="DuckDB's memory limit per connection.")
    duckdb_threads: int = Field(2, ge=1, description="DuckDB's threads per connection.")
    sql_folder: Path = Field(REPOSITORY / "dbt_like_sql", description="Folder of the SQL models.")
    strategy_config_folder: Path = Field(
        REPOSITORY / "mts_dagster" / "strategies" / "configs",
        description="Folder of the strategies' JSON files.",
    )
    strategy_folders: TextList = Field(
        (), description="Further folders whose Python files hold strategies of your own."
    )

    backtest_assumptions: Path = Field(
        REPOSITORY / "mts_dagster" / "backtest" / "assumptions.json",
        description="JSON file with what backtests take for granted: capital, venues, fees, fills, limits.",
    )

    history_start: date = Field(date(2021, 1, 1), description="First day partition (UTC).")
    stream_start: date = Field(date(2026, 1, 1), description="Day of the first hour partition (UTC).")
    coins: TextList = Field(
        ("bitcoin", "ethereum", "binancecoin"), description="CoinGecko ids that are always tracked."
    )
    universe_size: int = Field(3, ge=1, le=250, description="Coins taken from the top of the day's ranking.")
    kline_intervals: TextList = Field(("1h", "1d"), description="Kline intervals pulled from the venues.")
    kline_venues: TextList = Field(
        ("binance", "bybit"), description="Venues in order of preference; funding is taken from each."
    )
    bar_delay_s: float = Field(60.0, ge=0, description="A closed bar counts as known this long after its close.")
    trailing_days: int = Field(3, ge=1, description="Days that a scheduled run of daily data materialises again.")
    macro_trailing_days: int = Field(10, ge=1, description="The same for macro series, which are revised later.")

    macro_indicators: TextList = Field(
        ("VIXCLS", "DTWEXBGS", "DGS10", "DFF"), description="FRED series ids to collect."
    )
    macro_lag_business_days: dict[str, int] = Field(
        {"VIXCLS": 1, "DGS10": 1, "DFF": 1, "DTWEXBGS": 6},
        description="Business days from observation to publication, where FRED keeps no vintage.",
    )
    macro_default_lag_business_days: int = Field(
        32, ge=0, description="The same for series without an entry: a month, cautious on purpose."
    )
    macro_publication_hour: int = Field(
        17, ge=0, le=23, description="Hour in Chicago by which a vintage's values are taken as published."
    )

    coingecko_plan: Literal["keyless", "demo", "pro"] = Field("keyless", description="CoinGecko plan.")
    coingecko_api_key: SecretStr | None = Field(None, description="CoinGecko key of that plan.")
    coingecko_url: str = Field("https://api.coingecko.com/api/v3", description="Public and Demo host.")
    coingecko_pro_url: str = Field("https://pro-api.coingecko.com/api/v3", description="Pro host.")
    coingecko_requests_per_minute: int = Field(
        0, ge=0, description="Request budget; 0 takes the plan's: keyless 5, demo 30, pro 250."
    )
    fred_api_key: SecretStr | None = Field(None, description="FRED key, 32 lower-case letters and digits.")
    fred_url: str = Field("https://api.stlouisfed.org/fred", description="FRED root.")
    fred_requests_per_second: float = Field(2.0, gt=0, description="FRED's enforced budget.")
    binance_url: str = Field("https://fapi.binance.com", description="Binance USD-M futures REST root.")
    binance_weight_per_minute: int = Field(2400, ge=1, description="Binance request weight per minute.")
    bybit_url: str = Field("https://api.bybit.com", description="Bybit v5 REST root.")
    bybit_requests_per_5s: int = Field(300, ge=1, description="Bybit requests per 5 s; the venue allows 600.")
    http_timeout_s: float = Field(20.0, gt=0, description="Longest wait for a connection or the next bytes.")
    http_retries: int = Field(4, ge=0, description="Retries of a request that failed in a retryable way.")
    http_backoff_s: float = Field(1.0, gt=0, description="First pause between retries; doubles, with jitter.")
    http_max_wait_s: float = Field(120.0, gt=0, description="Longest pause that a Retry-After may ask for.")
    http_circuit_failures: int = Field(5, ge=1, description="Failures in a row after which a host is left alone.")
    http_circuit_reset_s: float = Field(30.0, gt=0, description="How long it is left alone before one new try.")

    landing_dir: Path = Field(Path(), description="Folder of the sidecar's segments. Default: landing/ in home.")
    landing_runs_per_tick: int = Field(4, ge=1, description="Hours that one tick of the landing sensor starts at most.")
    landing_running_hour_minutes: float = Field(
        10.0, gt=0, description="Least pause between two runs of the hour that is still running, minutes."
    )
    landing_keep_days: float = Field(
        3.0, gt=0, description="Segments stay this long after their hour; only stored ones are deleted."
    )

    dagster_port: int = Field(3000, ge=0, le=65535, description="Port of the Dagster UI.")

    @field_validator("coins", "kline_intervals", "kline_venues", "macro_indicators", "strategy_folders", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 - what the environment holds is not known yet
        if isinstance(value, str):
            return tuple(part.strip().strip("\"'") for part in value.strip("[] ").split(",") if part.strip())
        return value

    @model_validator(mode="before")
    @classmethod
    def _derive_places(cls, values: Any) -> Any:  # noqa: ANN401 - raw input
        """Resolve ``home`` once, and place catalog and files below it unless they are set."""
        if isinstance(values, dict):
            home = Path(values.get("home") or "data").expanduser().resolve()
            values = {**values, "home": home}
            values["catalog"] = values.get("catalog") or f"sqlite:{home / 'lake.sqlite'}"
            values["data_path"] = values.get("data_path") or f"{home / 'lake'}/"
            values["landing_dir"] = Path(values.get("landing_dir") or home / "landing").expanduser().resolve()
        return values

    @property
    def dagster_home(self) -> Path:
        """Folder of Dagster's own instance (runs, schedules, event log)."""
        return self.home / "dagster"

    @property
    def report_folder(self) -> Path:
        """Folder of the tear sheets."""
        return self.home / "reports"

    @property
    def segment_quarantine(self) -> Path:
        """Folder of segments that could not be read, each with its reason beside it."""
        return self.home / "quarantine" / "landing"

    @property
    def signal_folder(self) -> Path:
        """Folder of the signal JSON files."""
        return self.home / "signals"


def load_settings(**overrides: Any) -> Settings:  # noqa: ANN401 - typed by the class itself
    """Read the settings; a wrong one becomes a ``ConfigError`` that names it."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = "MTS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"setting {name}: {first['msg']} (got {first.get('input')!r})") from None
    except SettingsError as error:  # the value of a setting that is a JSON object is none
        field = str(error).split('"')[1]
        raise ConfigError(f'setting MTS_{field.upper()}: write it as a JSON object, e.g. {{"VIXCLS": 1}}') from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Settings of this process, read once."""
    return load_settings()
