"""Keeps the panel's process small.

Belongs here: what is said to the allocators, and what isn't imported. Doesn't: what is kept, and how much of it
(read_only.py, hours.py, export.py).
"""

import ctypes
import gc
import os
import sys
from contextlib import suppress
from importlib.abc import MetaPathFinder

# mallopt(3): how many heaps threads may have, and from how many bytes on a block is the system's again once it is free.
_MALLOC = {"M_ARENA_MAX": (-8, 2), "M_TRIM_THRESHOLD": (-1, 2**20), "M_MMAP_THRESHOLD": (-3, 2**20)}


def limit_allocators() -> None:
    """Lets what an export needed for a moment go back to the system, and does without pandas. For a process's start,
    before anything imports pyarrow.

    By default every thread's heap keeps the most it ever needed: 20 exports at once held 580 MiB more, not 200. Arrow's
    own allocator, which it chooses as it is imported, kept 20 MiB of each export as Parquet. And pyarrow and DuckDB
    import pandas, 40 MiB that nothing here asks for, at their first rows if it is installed.
    """
    if "pyarrow" in sys.modules:
        raise RuntimeError("pyarrow has chosen its allocator already")
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    sys.meta_path.insert(0, _NoPandas())
    with suppress(OSError, AttributeError):  # another C library has other ways
        libc = ctypes.CDLL("libc.so.6")
        for option, value in _MALLOC.values():
            libc.mallopt(option, value)


def freeze_startup_objects() -> None:
    """Exempts all existing objects from garbage collection. Call it after the imports, before serving."""
    gc.collect()
    gc.freeze()


def trim_memory() -> None:
    """Gives memory back that would stay: of exports that were broken off, whose exceptions hold what they were at
    until a full collection, which Python puts off (it takes milliseconds after `settle`); and of free blocks between
    used ones, which malloc never does by itself (malloc_trim(3)).
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the panel does without pandas", name=fullname)
