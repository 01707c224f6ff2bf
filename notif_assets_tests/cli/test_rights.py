"""Files are created with the rights that the process's umask leaves, whatever writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

import pytest

from notif_assets.lake import write_once
from notif_assets.reports.files import write_atomically
from notif_assets_tests.cli.deployment import ok
from notif_assets_tests.cli.messages import ACME, notification
from notif_assets_tests.conftest import Deploy


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """This process's umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _write(out: BinaryIO) -> None:
    out.write(b"x")


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002, 0o000])
def test_what_is_published_has_the_rights_of_the_umask(tmp_path: Path, mask: int) -> None:
    report, identity = tmp_path / "report.txt", tmp_path / "lake" / "lake.json"
    with umask(mask):
        for _ in range(2):  # the second one replaces the first
            write_atomically(report, _write)
            write_once(identity, {"topic": "x"})
    assert [path.stat().st_mode & 0o777 for path in (report, identity)] == [0o666 & ~mask] * 2
    assert {path.name for path in tmp_path.rglob("*")} == {"report.txt", "lake", "lake.json"}


def test_nothing_of_a_whole_deployment_is_open_to_others(deploy: Deploy) -> None:
    with umask(0o027):
        deployment = deploy(1, untouched=True)
        deployment.send([notification(datetime(2020, 2, 3, 14, tzinfo=UTC), "one")])
        prices = files("notif_assets") / "samples" / "prices-demo.csv"
        for command in (
            ("import-prices", prices),
            ("ingest", "--until-caught-up"),
            ("close-day", "2020-02-03"),
            ("import-invoices", files("notif_assets") / "samples" / "invoices.csv"),
            ("report", "detailed", "--customer", ACME, "--out", "data/detailed.csv"),
            ("revoke", "--customer", ACME),
            ("maintain",),
        ):
            ok(deployment.call(*command))
        assert deployment.call("token", "--customer", ACME).code == 0
    found = {str(path.relative_to(deployment.home)): path.stat().st_mode & 0o777 for path in deployment.home.rglob("*")}
    assert {name.rpartition(".")[2] for name in found} >= {"parquet", "json", "txt", "csv", "key"}
    assert {name: oct(rights) for name, rights in found.items() if rights & 0o027} == {}
