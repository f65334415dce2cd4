"""Settings: where they come from, which forms they take, and what a wrong one says."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from mts_dagster.errors import ConfigError
from mts_dagster.settings import load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``.env`` of the developer's is read."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ["bitcoin,ethereum", " bitcoin , ethereum ,", '["bitcoin", "ethereum"]'])
def test_lists_are_json_or_comma_separated(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Both forms mean the same, with or without blanks."""
    monkeypatch.setenv("MTS_COINS", text)
    assert load_settings().coins == ("bitcoin", "ethereum")


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """``MTS_COINS=`` in a compose file means the default."""
    monkeypatch.setenv("MTS_COINS", "")
    assert load_settings().coins == ("bitcoin", "ethereum", "binancecoin")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MTS_LOCK_WAIT_S", "soon", r"setting MTS_LOCK_WAIT_S: .*number.*'soon'"),
        ("MTS_LOCK_WAIT_S", "0", r"setting MTS_LOCK_WAIT_S: .*greater than 0.*'0'"),
        ("MTS_UNIVERSE_SIZE", "500", r"setting MTS_UNIVERSE_SIZE: .*less than or equal to 250"),
        ("MTS_HISTORY_START", "2024-13-01", r"setting MTS_HISTORY_START: "),
        ("MTS_COINGECKO_PLAN", "gold", r"setting MTS_COINGECKO_PLAN: .*'keyless', 'demo' or 'pro'.*'gold'"),
        ("MTS_DAGSTER_PORT", "70000", r"setting MTS_DAGSTER_PORT: "),
        ("MTS_MACRO_LAG_BUSINESS_DAYS", "VIXCLS=1", r"setting MTS_MACRO_LAG_BUSINESS_DAYS: "),
        ("MTS_MACRO_LAG_BUSINESS_DAYS", '{"VIXCLS": "x"}', r"setting MTS_MACRO_LAG_BUSINESS_DAYS"),
    ],
)
def test_a_wrong_value_names_its_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    """One line with the variable, what is allowed, and what was given."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=told) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_a_wrong_key_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message may end in a log or in a ticket: it never holds a secret."""
    monkeypatch.setenv("MTS_FRED_API_KEY", "geheim")
    assert "geheim" not in str(load_settings())
    assert "geheim" not in load_settings().model_dump_json()


def test_everything_lies_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One variable moves the lake, the files, the signals and Dagster's own state."""
    monkeypatch.setenv("MTS_HOME", str(tmp_path / "other"))
    settings = load_settings()
    assert settings.home == tmp_path / "other"
    assert settings.catalog == f"sqlite:{tmp_path}/other/lake.sqlite"
    assert settings.data_path == f"{tmp_path}/other/lake/"
    assert settings.dagster_home == tmp_path / "other" / "dagster"
    assert settings.signal_folder == tmp_path / "other" / "signals"


def test_home_is_data_in_the_working_folder_by_default(tmp_path: Path) -> None:
    """And absolute, so that a process in another folder means the same."""
    assert load_settings().home == tmp_path / "data"


def test_a_relative_home_is_resolved_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Changing the folder later does not move the lake."""
    monkeypatch.setenv("MTS_HOME", "mine/../here")
    settings = load_settings()
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / "here"


def test_a_catalog_of_its_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres and S3 by two settings; home keeps the rest."""
    monkeypatch.setenv("MTS_CATALOG", "postgres:dbname=lake")
    monkeypatch.setenv("MTS_DATA_PATH", "s3://bucket/lake/")
    settings = load_settings()
    assert (settings.catalog, settings.data_path) == ("postgres:dbname=lake", "s3://bucket/lake/")


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``.env`` in the working folder is read; what is exported counts more."""
    tmp_path.joinpath(".env").write_text("MTS_UNIVERSE_SIZE=5\nMTS_HISTORY_START=2022-02-02\nOTHER=1\n")
    monkeypatch.setenv("MTS_UNIVERSE_SIZE", "7")
    settings = load_settings()
    assert (settings.universe_size, settings.history_start) == (7, date(2022, 2, 2))


def test_settings_are_frozen() -> None:
    """A running process never sees two values of one setting."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings().universe_size = 4  # type: ignore[misc]  # the point of the test


def test_every_setting_says_what_it_is() -> None:
    """The description is what a stranger reads."""
    assert [name for name, field in type(load_settings()).model_fields.items() if not field.description] == []
