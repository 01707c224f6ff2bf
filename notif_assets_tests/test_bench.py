"""The benchmark runs: small, and not for its figures."""

import os
import subprocess
import sys

import pytest

from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.kafka.apache.broker import tools_missing


def test_both_clients_bring_the_same_rows() -> None:
    missing = tools_missing()
    if missing and "CI" not in os.environ:
        pytest.skip(missing)
    command = [sys.executable, "-m", "bench", "--messages", "5000", "--rounds", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert any(line.startswith("rows of ") and line.endswith(": the same in every run") for line in lines), ran.stdout
    assert not [line for line in lines if ", exit " in line]
    assert lines[-1].startswith("ratio 0.")
