"""The home folder: made once, kept up to date, never taken out of its user's hands."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.config import PoolGranularity

from mts_dagster.errors import ConfigError
from mts_dagster.instance import home
from mts_dagster.instance.event_log import BatchingEventLogStorage
from mts_dagster.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings whose home does not exist yet; the environment is put back afterwards."""
    before = dict(os.environ)
    yield load_settings(home=tmp_path / "data")
    os.environ.clear()
    os.environ.update(before)


def test_prepare_makes_the_home_with_its_settings(settings: Settings) -> None:
    """A fresh folder holds our dagster.yaml and Dagster's databases, and the folder is what is returned."""
    assert home.prepare(settings) == settings.dagster_home
    assert "class: BatchingSqliteStorage" in (settings.dagster_home / "dagster.yaml").read_text(encoding="utf-8")
    names = {path.name for path in settings.dagster_home.iterdir()}
    assert {"dagster.yaml", "history", "schedules"} <= names


def test_prepare_twice_says_and_changes_nothing(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """The second call leaves the same file, untouched, without a word."""
    file = home.prepare(settings) / "dagster.yaml"
    before = file.stat().st_mtime_ns
    with caplog.at_level(logging.WARNING):
        home.prepare(settings)
    assert file.stat().st_mtime_ns == before
    assert caplog.messages == []


def test_an_edited_file_is_left_alone_and_told(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """One changed number makes the file its user's."""
    file = home.prepare(settings) / "dagster.yaml"
    edited = file.read_text(encoding="utf-8").replace("max_concurrent_runs: 2", "max_concurrent_runs: 6")
    file.write_text(edited, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        home.prepare(settings)
    assert file.read_text(encoding="utf-8") == edited
    assert caplog.messages == [
        f"{file} was edited by hand, so MTS leaves it as it is; delete it to get the text of MTS back"
    ]


def test_a_file_of_the_users_own_is_left_alone(settings: Settings) -> None:
    """A file that never was ours, even an empty one, stays."""
    settings.dagster_home.mkdir(parents=True)
    file = settings.dagster_home / "dagster.yaml"
    file.write_text("", encoding="utf-8")
    home.prepare(settings)
    assert file.read_text(encoding="utf-8") == ""


def test_an_unmodified_older_text_is_replaced(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """What an earlier version wrote, and nobody touched, becomes the text of today."""
    file = home.prepare(settings) / "dagster.yaml"
    today = file.read_text(encoding="utf-8")
    file.write_text(home._marked("telemetry:\n  enabled: false\n"), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        home.prepare(settings)
    assert file.read_text(encoding="utf-8") == today
    assert caplog.messages == []


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file where the folder should be: the message names it and the setting to change."""
    tmp_path.joinpath("data").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot write .*data.*; set MTS_HOME to a folder you may write") as caught:
        home.prepare(load_settings(home=tmp_path / "data"))
    assert "\n" not in str(caught.value)


def test_the_environment_of_a_process_of_the_instance(settings: Settings) -> None:
    """Three variables and no more."""
    assert home.environment(settings) == {
        "DAGSTER_HOME": str(settings.dagster_home),
        "DAGSTER_EVENT_BATCH_SIZE": "2000",
        "MTS_HOME": str(settings.home),
    }


def test_the_instance_opens_as_dagster_yaml_says(settings: Settings) -> None:
    """Every setting of the file arrives, read back from the instance."""
    with home.open_instance(settings) as instance:
        assert isinstance(instance.event_log_storage, BatchingEventLogStorage)
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 2
        assert queue.tag_concurrency_limits == [{"key": "dagster/backfill", "limit": 1}]
        pools = instance.get_concurrency_config().pool_config
        assert (pools.pool_granularity, pools.default_pool_limit) == (PoolGranularity.RUN, None)
        assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 2)
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 43200
        assert instance.code_server_process_startup_timeout == 180
        assert instance.get_settings("sensors") == {"use_threads": True, "num_workers": 4}
        ticks = instance.get_tick_retention_settings(InstigatorType.SENSOR)
        assert {status.value: days for status, days in ticks.items()} == {
            "STARTED": -1,
            "SKIPPED": 2,
            "SUCCESS": 30,
            "FAILURE": 90,
        }


def test_all_state_lies_below_the_home(settings: Settings) -> None:
    """Two instances with two homes share nothing."""
    with home.open_instance(settings) as instance:
        instance.add_dynamic_partitions("coin", ["bitcoin"])
    assert {path.relative_to(settings.home).parts[0] for path in settings.home.rglob("*")} == {"dagster"}
    with home.open_instance(load_settings(home=settings.home.parent / "other")) as other:
        assert other.get_dynamic_partitions("coin") == []


def test_opening_again_finds_what_was_stored(settings: Settings) -> None:
    """The command line and the UI speak of the same instance."""
    with home.open_instance(settings) as instance:
        instance.add_dynamic_partitions("coin", ["bitcoin"])
    with home.open_instance(settings) as again:
        assert again.get_dynamic_partitions("coin") == ["bitcoin"]


def test_opening_a_moved_home_follows_it(settings: Settings) -> None:
    """The file names no absolute path: a copied or renamed home stays whole."""
    with home.open_instance(settings) as instance:
        instance.add_dynamic_partitions("coin", ["bitcoin"])
    moved = settings.home.rename(settings.home.parent / "moved")
    with home.open_instance(load_settings(home=moved)) as again:
        assert again.get_dynamic_partitions("coin") == ["bitcoin"]
    assert not settings.home.exists()


def test_opening_sets_the_environment_that_dagster_reads(settings: Settings) -> None:
    """A run in this process stores its events in batches, in this home."""
    with home.open_instance(settings):
        assert {name: os.environ[name] for name in home.environment(settings)} == home.environment(settings)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("concurrency:\n  runs:\n    max_concurrent_runs: many\n", 'Value "many"'),
        ("max_runs: 3\n", 'unexpected config entry "max_runs"'),
        ("a: [\n", "flow"),
        ("- a\n", "to parse to dictionary"),
        (
            "storage:\n  custom:\n    module: mts_dagster.instance.gone\n    class: Gone\n    config: {}\n",
            "mts_dagster.instance.gone",
        ),
    ],
)
def test_a_wrong_edit_is_one_line_that_names_the_file(settings: Settings, text: str, part: str) -> None:
    """Wrong value, unknown key, broken YAML, no mapping, a class that is not there."""
    file = home.prepare(settings) / "dagster.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        home.open_instance(settings)
    message = str(caught.value)
    assert message.startswith(f"{file} is wrong: ")
    assert part in message
    assert message.endswith("; correct it, or delete it to get the text of MTS back")
    assert "\n" not in message


def test_databases_that_cannot_be_opened_are_one_line(settings: Settings) -> None:
    """A file where Dagster wants a folder."""
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "history").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot open Dagster's databases below") as caught:
        home.open_instance(settings)
    assert "\n" not in str(caught.value)


def test_the_event_log_imports_no_more_than_dagster() -> None:
    """Webserver and daemon load this module: no data frames, no DuckDB, none of our settings."""
    loaded = (
        "import sys, dagster; before = set(sys.modules); import mts_dagster.instance.event_log; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", loaded], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) & {"pandas", "numpy", "duckdb", "pandera", "pydantic_settings", "requests"} == set()
    assert "mts_dagster" in out.stdout.split()
