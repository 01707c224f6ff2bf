"""Report files.

Belongs here: writing a file atomically. Doesn't: its content (text.py, plain.py, workbook.py, pdf.py), its path
(billing/report_files.py, invoices/averages.py).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file atomically: a reader sees the new file or the old one, never a part. The umask sets its rights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with draft.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
