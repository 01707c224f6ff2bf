"""A small disk of its own for a folder, which gets full and read-only as disks do.

Belongs here: mounting, filling, remounting. Doesn't: what a command does then (the tests). Mounting takes root, as in
CI; elsewhere these tests are skipped.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from notif_assets_tests.cli.deployment import until


class Disk:
    """A tmpfs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self, but: int) -> None:
        """Leaves so many bytes, about."""
        free = os.statvfs(self.place)
        with self._ballast.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, free.f_bavail * free.f_bsize - but))

    def free(self) -> None:
        """Gives the space back."""
        self._ballast.unlink(missing_ok=True)

    def read_only(self) -> None:
        """As the system does to a disk that fails; waits for a moment in which nothing is open for writing."""
        until(lambda: _mount("-o", "remount,ro", str(self.place)) == "", "the remounting")

    def writable(self) -> None:
        """As before."""
        assert _mount("-o", "remount,rw", str(self.place)) == ""


def _mount(*arguments: str) -> str:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False).stderr


@contextmanager
def disk(place: Path, megabytes: int) -> Iterator[Disk]:
    """A disk of that size mounted at `place`."""
    place.mkdir(parents=True)
    problem = _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place))
    if problem and "CI" not in os.environ:
        pytest.skip(f"nothing can be mounted here: {problem.strip()}")
    assert problem == ""
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
