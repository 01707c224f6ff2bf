"""How a query ends that does not come to its end, or that can't begin."""

import os
import signal
from pathlib import Path
from threading import Timer

import duckdb
import pytest

from notif_assets.lake import Lake, engine

ENDLESS = "select sum(a.range * b.range) from range(1_000_000_000) a, range(1_000_000_000) b"


class Interrupted(BaseException):
    """What a handler of a signal raises, as Dagster's does."""


def _raise(*_: object) -> None:
    raise Interrupted


def _ask_interrupted(root: Path, seconds: float) -> None:
    with Lake(root) as lake:
        Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
        lake.select("endless", {})


def test_a_signal_ends_a_query_with_what_its_handler_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it comes, and whichever of the engine's threads are in the middle of the query then."""
    monkeypatch.setattr(engine, "_sql", lambda _name: ENDLESS)
    before = signal.signal(signal.SIGINT, _raise)
    try:
        for attempt in range(60):
            with pytest.raises(Interrupted):
                _ask_interrupted(tmp_path, 0.003 * attempt)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_engine_that_can_t_be_opened_is_no_data_file_that_can_t_be_read(tmp_path: Path) -> None:
    with (
        Lake(tmp_path, lambda: duckdb.connect(config={"no_option": "x"})) as lake,
        pytest.raises(duckdb.InvalidInputException, match="no_option"),
    ):
        lake.select("committed_ends", {})
