"""How much memory a process takes.

Belongs here: asking the kernel. Doesn't: of which processes, and when (the benchmarks).
"""

from pathlib import Path


def pss(pid: int) -> int:
    """Bytes of a process, each shared page counted in parts. Raises OSError if the process is gone."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in told.splitlines() if line.startswith("Pss:"))
