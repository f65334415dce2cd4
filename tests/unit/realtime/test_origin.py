"""The sidecar asks exchanges of one kind, and writes where data of that kind lies."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mts_realtime.__main__ import main
from mts_realtime.capture import replay
from mts_realtime.errors import LandingError, SettingsError
from mts_realtime.origin import claim, guard_capture, guard_landing, kind_of_settings, read_mark
from mts_realtime.settings import RealtimeSettings, load_settings

ADDRESSES = {
    "binance_url": "http://127.0.0.1:9",
    "binance_ws_url": "ws://127.0.0.1:9",
    "bybit_url": "http://localhost:9",
    "bybit_ws_url": "ws://[::1]:9/v5/public/linear",
}


def settings(home: Path, *simulated: str, **overrides: object) -> RealtimeSettings:
    """Settings with some addresses on loopback, the others as they come."""
    return load_settings(home=home, **{name: ADDRESSES[name] for name in simulated}, **overrides)


@pytest.fixture(autouse=True)
def _no_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_nothing_set_is_real(tmp_path: Path) -> None:
    """The exchanges' own hosts."""
    assert kind_of_settings(settings(tmp_path)) == "real"


def test_all_on_loopback_is_simulated(tmp_path: Path) -> None:
    """Whatever the loopback is called."""
    assert kind_of_settings(settings(tmp_path, *ADDRESSES)) == "simulated"


@pytest.mark.parametrize("odd", ADDRESSES)
def test_one_address_of_the_other_kind_is_refused(tmp_path: Path, odd: str) -> None:
    """A real socket among simulated addresses, and the reverse; the error names it."""
    name = f"MTS_{odd.upper()}"
    with pytest.raises(SettingsError, match=rf"; elsewhere: {name}; set all of them or none$"):
        kind_of_settings(settings(tmp_path, *(address for address in ADDRESSES if address != odd)))
    with pytest.raises(SettingsError, match=rf"^at loopback: {name}; elsewhere: .*; set all of them or none$"):
        kind_of_settings(settings(tmp_path, odd))


def test_an_exchange_that_is_not_followed_does_not_count(tmp_path: Path) -> None:
    """Nothing is asked of it."""
    followed = settings(tmp_path, "bybit_url", "bybit_ws_url", exchanges=("bybit",))
    assert kind_of_settings(followed) == "simulated"


@pytest.mark.parametrize("options", [[], ["--monitor-only"], ["--capture", "raw"]])
def test_a_mixture_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """One line and code 2 before anything is asked or written."""
    monkeypatch.setenv("MTS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MTS_BINANCE_URL", ADDRESSES["binance_url"])
    monkeypatch.setenv("MTS_BYBIT_URL", ADDRESSES["bybit_url"])
    assert main(options) == 2
    assert capsys.readouterr().err == (
        "mts stream: at loopback: MTS_BINANCE_URL, MTS_BYBIT_URL; elsewhere: MTS_BINANCE_WS_URL, MTS_BYBIT_WS_URL; "
        "set all of them or none\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_landing_folder_remembers_its_kind(tmp_path: Path) -> None:
    """The first sidecar marks it; the other kind is refused and changes nothing."""
    ours = settings(tmp_path)
    guard_landing(ours, "simulated")
    guard_landing(ours, "simulated")
    with pytest.raises(SettingsError, match=r"landing holds simulated data, but .* is real; set MTS_LANDING_DIR or "):
        guard_landing(ours, "real")
    assert read_mark(ours.landing_dir) == "simulated"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file in its place."""
    (tmp_path / "raw").write_text("")
    with pytest.raises(LandingError, match=r"cannot write .*raw/origin.txt: .*; capture into another folder"):
        guard_capture(tmp_path / "raw", "real")


def test_a_replay_keeps_the_kind_of_its_capture(tmp_path: Path) -> None:
    """Simulated frames replayed without the simulator's addresses are simulated still."""
    capture = tmp_path / "raw"
    claim(capture, "simulated")
    write_capture(capture)
    ours = settings(tmp_path)
    replay(ours, capture)
    assert read_mark(ours.landing_dir) == "simulated"
    real = settings(tmp_path / "real")
    claim(real.landing_dir, "real")
    with pytest.raises(SettingsError, match="holds real data, but what is to be written there is simulated"):
        replay(real, capture)


def write_capture(folder: Path) -> None:
    """A process that started and stopped."""
    lines = b'{"ts":1795176000000000000,"event":"start"}\n{"ts":1795176001000000000,"event":"stop"}\n'
    (folder / "capture-1795176000000.jsonl.gz").write_bytes(gzip.compress(lines))


def test_a_replay_of_nothing_marks_nothing(tmp_path: Path) -> None:
    """A wrong folder leaves no trace."""
    ours = settings(tmp_path)
    with pytest.raises(LandingError, match="holds no capture"):
        replay(ours, tmp_path / "nowhere")
    assert not ours.landing_dir.exists()
