"""How much memory a process takes.

Belongs here: asking the kernel. Doesn't: of which processes, and when (the benchmarks).
"""

from pathlib import Path


def pss(pid: int) -> int:
    """Bytes of a process, each shared page counted in parts. Raises OSError if the process is gone."""
    return _told(pid, "Pss")


def of_its_own(pid: int) -> int:
    """As pss, without what are pages of files, of libraries mostly, which the system takes back where it needs them."""
    return _told(pid, "Pss_Anon")


def _told(pid: int, of: str) -> int:
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in told.splitlines() if line.startswith(f"{of}:"))
