"""A report for a terminal: control characters of a name or a message are escaped, because a terminal obeys them.

Belongs here: the escapes, in any format. Doesn't: what a file or a pipe gets (plain.py, text.py).
"""

import codecs
import io
from typing import TYPE_CHECKING, BinaryIO

from notif_assets.reports.text import visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Escaped(io.RawIOBase):
    """Writes to `out`, with every control character except line breaks as its JSON escape."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._written = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: "ReadableBuffer") -> int:
        """Gives how many bytes of `data` are taken: all."""
        whole = bytes(data)
        lines = self._decoder.decode(whole).split("\n")
        self._out.write("\n".join(map(visible, lines)).encode())
        self._written += len(whole)
        return len(whole)

    def tell(self) -> int:
        """How many bytes were taken."""
        return self._written
