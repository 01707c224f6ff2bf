"""What make says before it does it."""

import subprocess

from notif_assets_tests.cli.deployment import ROOT


def test_make_ui_says_what_it_opens() -> None:
    told = subprocess.run(["make", "--dry-run", "ui"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    says, opens = told.index("http://127.0.0.1:3000: it has no login"), told.index("dagster dev")
    assert says < opens
    assert "docs/nginx.conf" in told
