"""How much memory and CPU a process takes.

Belongs here: asking the kernel. Doesn't: of which processes, and when (the benchmarks).
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_FORKED_ONLY = 0x40  # PF_FORKNOEXEC of the kernel: it has not executed a program of its own


class Memory(NamedTuple):
    """Bytes of a process, each shared page counted in parts: all, and those that are no pages of files (of libraries
    mostly, which the system takes back where it needs them)."""

    pss: int
    own: int

    def __str__(self) -> str:
        return f"{self.pss / 2**20:.0f} MiB ({self.own / 2**20:.0f} without pages of files)"


def memory(pid: int) -> Memory:
    """The memory of a process now. Raises OSError if the process is gone."""
    lines = map(str.split, Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kibibytes = {name.rstrip(":"): int(number) for name, number, _ in lines}
    return Memory(1024 * kibibytes["Pss"], 1024 * kibibytes["Pss_Anon"])


def peak(pid: int) -> int:
    """The most bytes that a process had in memory so far; 0 of one that just ended. Raises OSError if it is gone."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return 1024 * int(found[1]) if found else 0


def peak_of_all(pid: int) -> int:
    """The most bytes that a process and those that it started and that still run had in memory so far, each at its own
    moment. A child that is only being started has its parent's memory, which is counted once. Raises OSError if the
    process is gone."""
    most = peak(pid)
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):  # it ended since
                if not int(_stat(int(child))[6]) & _FORKED_ONLY:
                    most += peak_of_all(int(child))
    return most


def cpu(pid: int) -> float:
    """The CPU seconds that a process and its children which ended took. Raises OSError if the process is gone."""
    # User and system time of the process, then those of its children.
    return sum(map(int, _stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: they follow the name, which may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
