"""The benchmark runs: small, and not for its figures."""

import os
import subprocess
import sys

import pytest

from bench.usage import peak, peak_of_all
from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.kafka.apache.broker import tools_missing
from notif_assets_tests.postgres import binaries


def run(*command: str) -> list[str]:
    """The lines that a benchmark prints."""
    ran = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_memory_of_a_command_is_that_of_all_its_processes() -> None:
    child = "import sys; held = b'x' * 200_000_000; print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert peak(process.pid) < 100_000_000 < 200_000_000 < peak_of_all(process.pid)
        process.communicate()


def test_a_child_that_has_not_begun_its_own_program_is_counted_with_its_parent() -> None:
    program = "import os, sys; held = b'x' * 200_000_000; os.fork() and print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert peak_of_all(process.pid) < 300_000_000
        process.communicate()


def test_an_hour_that_fills() -> None:
    lines = run("bench.hour", "--batches", "20")
    assert [line.partition(":")[0] for line in lines[:-1]] == ["batch    0", "batch   19"]
    assert lines[-1].startswith("ratio ")


def test_years_that_go_by() -> None:
    """Old data files are not there, so a batch, a look or a close that reads one fails."""
    lines = run("bench.years", "--days", "1", "60", "--messages", "30000")
    assert [line.partition(":")[0] for line in lines[:-1]] == ["day     1", "day    60"]
    assert all("a nightly close" in line for line in lines[:-1])
    assert lines[-1].startswith("ratio ")


def test_a_serving_copy_that_is_loaded_and_follows() -> None:
    if binaries() is None and "CI" not in os.environ:
        pytest.skip("no PostgreSQL")
    lines = run("bench.serving", "--rows", "20000", "--batches", "3")
    assert [line.partition(" ")[0] for line in lines] == ["serve:", "plain", "ratio", "a"]


def test_both_clients_bring_the_same_rows() -> None:
    missing = tools_missing()
    if missing and "CI" not in os.environ:
        pytest.skip(missing)
    lines = run("bench", "--messages", "5000", "--rounds", "1")
    assert any(line.startswith("rows of ") and line.endswith(": the same in every run") for line in lines), lines
    assert not [line for line in lines if ", exit " in line]
    assert lines[-1].startswith("ratio 0.")
