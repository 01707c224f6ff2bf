"""Reports as files that others read.

Belongs here: putting a file in its place, whole. Doesn't: what is in it (text.py, plain.py, workbook.py, pdf.py), where
it lies (billing/report_files.py, invoices/averages.py).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def publish(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file: others, if the umask lets them read it, see the whole of it or the one before, never a part."""
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
