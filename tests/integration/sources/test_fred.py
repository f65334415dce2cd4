"""FRED through HTTP: what was known on any day, rebuilt and compared with what FRED says it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from mts_dagster.schemas import MacroData
from mts_dagster.sources.errors import UnauthorisedError, UnknownSymbolError
from mts_dagster.sources.fred import Fred
from mts_simulator import Fault, SimulatorConfig
from mts_simulator.faults import FaultKind

from .conftest import NOW, World

START, END = date(2025, 6, 1), date(2026, 3, 5)


@pytest.mark.parametrize("indicator", ["VIXCLS", "DTWEXBGS", "DGS10", "DFF"])
def test_every_day_can_be_rebuilt_as_it_was_known(world: World, indicator: str) -> None:
    """For days of asking over nine months, our latest vintages equal FRED's own answer as of that day."""
    with Fred(world.settings(), world.clock) as client:
        frame = client.observations(indicator, START, END)
        for asked in (date(2025, 6, 16), date(2025, 9, 3), date(2025, 12, 26), date(2026, 3, 3)):
            known = frame[frame["vintage_date"] <= pd.Timestamp(asked)]
            ours = known.sort_values("vintage_date").groupby("date")["value"].last()
            theirs = client.get_series(
                indicator,
                observation_start=START,
                realtime_start=asked.isoformat(),
                realtime_end=asked.isoformat(),
            )
            assert ours.to_numpy() == pytest.approx(theirs.to_numpy(), nan_ok=True)
            assert ours.index.tolist() == theirs.index.tolist()


def test_all_of_history_in_pieces_that_fred_accepts(world: World) -> None:
    """More than 2000 vintages since 2017: no request is refused, and no row is known before its day."""
    with Fred(world.settings(), world.clock) as client:
        vintages = client.vintage_dates("VIXCLS")
        frame = client.observations("VIXCLS", date(2017, 1, 1), END)
    MacroData.validate(frame)
    assert len(vintages) > 2000
    assert {request.status for request in world.simulator.requests.of("fred")} == {200}
    assert not frame.duplicated(["date", "vintage_date"]).any()
    assert (frame["available_at"] > frame["date"].dt.tz_localize("UTC")).all()
    assert set(frame["date"].dt.dayofweek) <= set(range(5))


def test_a_short_window_equals_that_part_of_the_long_one(world: World) -> None:
    """A daily refresh asks for few vintages and finds the same rows."""
    with Fred(world.settings(), world.clock) as client:
        long = client.observations("DTWEXBGS", START, END)
        short = client.observations("DTWEXBGS", date(2026, 2, 2), date(2026, 2, 14))
    part = long[long["date"].between(pd.Timestamp("2026-02-02"), pd.Timestamp("2026-02-13"))]
    pd.testing.assert_frame_equal(short, part.reset_index(drop=True))


def test_requests_keep_to_two_a_second(start_world: Callable[[SimulatorConfig], World]) -> None:
    """With FRED's limit enforced, four series over five years meet no 429; time passes on the clock instead."""
    world = start_world(SimulatorConfig(now=NOW, enforce_limits=True))
    with Fred(world.settings(), world.clock) as client:
        for indicator in ("VIXCLS", "DTWEXBGS", "DGS10", "DFF"):
            client.observations(indicator, date(2021, 1, 1), END)
    requests = world.simulator.requests.of("fred")
    assert {request.status for request in requests} == {200}
    took_s = (requests[-1].time_ms - requests[0].time_ms) / 1000
    assert took_s >= (len(requests) - 1) * 0.5


@pytest.mark.parametrize("kind", ["reset", "truncate", "html", "status"])
def test_a_fault_changes_nothing(world: World, kind: FaultKind) -> None:
    """One spoiled answer: the frame is the same as without it."""
    with Fred(world.settings(), world.clock) as client:
        expected = client.observations("DGS10", START, END)
        world.simulator.faults.add(Fault(kind, path="*observations*"))
        pd.testing.assert_frame_equal(client.observations("DGS10", START, END), expected)


def test_an_unknown_series(world: World) -> None:
    """A name that FRED does not have."""
    with Fred(world.settings(), world.clock) as client, pytest.raises(UnknownSymbolError, match="fred NOSUCH"):
        client.observations("NOSUCH", START, END)


def test_a_key_of_the_wrong_form(world: World) -> None:
    """FRED's rejection of the key names the setting and not the key."""
    key = "WRONG-KEY-WRONG-KEY"
    with Fred(world.settings(fred_api_key=key), world.clock) as client:
        with pytest.raises(UnauthorisedError, match="MTS_FRED_API_KEY") as caught:
            client.observations("VIXCLS", START, END)
        assert key not in f"{caught.value}{vars(caught.value)}"


def test_recorded_vix(start_world: Callable[[SimulatorConfig], World], recordings: Path) -> None:
    """The recorded VIX of 2024, served as FRED would: values and holes equal the file."""
    recorded = pd.read_csv(recordings / "macro/VIXCLS.csv", parse_dates=["observation_date"])
    in_2024 = recorded["observation_date"].dt.year == 2024
    expected = recorded.loc[in_2024].set_index("observation_date")["VIXCLS"]
    world = start_world(SimulatorConfig(replay=recordings))
    with Fred(world.settings(), world.clock) as client:
        frame = client.observations("VIXCLS", date(2024, 1, 1), date(2025, 1, 1))
    latest = frame.sort_values("vintage_date").groupby("date")["value"].last()
    assert latest.index.tolist() == expected.index.tolist()
    assert latest.to_numpy() == pytest.approx(expected.to_numpy(), nan_ok=True)
    waited = frame["available_at"] - frame["date"].dt.tz_localize("UTC")
    assert waited.min() >= timedelta(hours=34)
    assert waited.max() <= timedelta(days=6)
