"""A machine without memory: told as that, and never taken for damage.

Belongs here: the engine's limit and the system's. Doesn't: that little memory is needed (`make bench-memory`).
"""

import subprocess
import sys
from pathlib import Path

import pytest

from notif_assets.lake import Lake, OutOfMemory
from notif_assets.lake.staging import append
from notif_assets_tests.lake.test_pieces import records

_LARGE = 300 * 2**20

_LOOK = """
import resource, sys
from pathlib import Path
from notif_assets.lake import Lake, OutOfMemory
from notif_assets.lake.pieces import pieces
from notif_assets.maintenance.integrity import find_broken_files

lake = Lake(Path(sys.argv[1]))
assert list(find_broken_files(lake)) == []
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 100 * 2**20, resource.RLIM_INFINITY))
for look in (find_broken_files, lambda lake: pieces(lake.table("raw_notifications").scan())):
    try:
        list(look(lake))
        print("found room")
    except OutOfMemory as error:
        print(error)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a message of 300 MiB."""
    root = tmp_path_factory.mktemp("large")
    with Lake(root) as lake:
        append(lake.table("raw_notifications"), [records(1, _LARGE)], 1)
    return root


def test_the_engine_s_limit_is_told_with_its_setting(large: Path) -> None:
    with (
        Lake(large, memory="50MB") as lake,
        pytest.raises(OutOfMemory, match=r"set NOTIF_ENGINE_MEMORY higher \(of the panel NOTIF_PANEL_MEMORY\)"),
    ):
        lake.rows(lake.table("raw_notifications").scan())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_that_the_system_refuses_is_no_damage(large: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, large],
        env={"ARROW_DEFAULT_MEMORY_POOL": "system"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    first, second = done.stdout.splitlines()
    assert first.endswith("can't be looked at: the machine has no memory left for it"), done.stderr
    assert second.endswith("can't be read: the machine has no memory left for it")
    assert (done.returncode, done.stderr) == (0, "")
