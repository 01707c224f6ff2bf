"""The kit: everything that the tools need, as files.

Belongs here: which files there are, and putting them into a folder. Doesn't: what is in them (power_bi.py, superset.py,
metabase.py), the views that they read (views.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from notif_assets.bi_kit import metabase, power_bi, superset
from notif_assets.bi_kit.views import View
from notif_assets.errors import Refusal
from notif_assets.reports.files import write_atomically
from notif_assets.serving.layout import READERS
from notif_assets.settings import Settings


@dataclass(frozen=True)
class ServingCopy:
    """Where the serving copy is. `server` is host:port, as the tools' users reach it; `user` reads its views."""

    server: str
    database: str
    user: str = READERS


class CopyUnknown(Refusal):
    """Nothing says where the serving copy is."""


def find_copy(settings: Settings, server: str | None, database: str | None, user: str) -> ServingCopy:
    """Where the copy is: as asked, else as NOTIF_SERVING_URL says, of which a user and a password are not taken.

    Raises CopyUnknown.
    """
    url = urlsplit(settings.serving_url.get_secret_value() if settings.serving_url else "")
    server = server or url.netloc.rpartition("@")[2]
    database = database or unquote(url.path.strip("/"))
    if not server or not database:
        raise CopyUnknown("where is the serving copy? Say --server and --database, or set NOTIF_SERVING_URL")
    return ServingCopy(server if ":" in server else f"{server}:{_PORT}", database, user)


_PORT = 5432


def files_of_kit(views: tuple[View, ...], copy: ServingCopy, today: date) -> dict[str, bytes]:
    """Every file of the kit by its path. What Power BI Desktop loads first begins with the month before `today`."""
    texts = power_bi.files(views, copy.server, copy.database, today) | metabase.files(views)
    of_superset = superset.packed(superset.files(views, copy.server, copy.database, copy.user))
    return {path: text.encode() for path, text in texts.items()} | {superset.ARCHIVE: of_superset}


def write_kit(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Writes the files into a folder, over those of an older kit; gives those that it wrote.

    A Power BI report that is there already is its owner's, and stays.
    """
    paths = [path for path in files if not _of_report(path) or not (folder / _REPORT).exists()]
    paths.sort(key=lambda path: path == _REPORT)  # last, so that it stands for a whole report
    for path in paths:
        write_atomically(folder / path, partial(_put, files[path]))
    return [folder / path for path in paths]


_REPORT = "power_bi/notif.Report/definition.pbir"


def _of_report(path: str) -> bool:
    return PurePosixPath(_REPORT).parent in PurePosixPath(path).parents


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
