"""Revoked tokens: signed by a key and not expired, but no longer valid.

Belongs here: where revocations are kept, and whether one concerns a viewer. Doesn't: what a token is (tokens.py).

Each revocation is a small file in the folder `revoked_tokens` of the lake, which every process of the panel sees, on
whatever machine; none is ever changed. It names one token, or says of a customer (null: of operators) that what was
issued before a moment holds no longer.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from notif_assets.lake import LakeError, write_once
from notif_assets.panel.tokens import Viewer

FOLDER = "revoked_tokens"
_EVERY_SECONDS = 1.0


def revoke_token(lake: Path, token: str) -> None:
    """Ends the token of that name (Viewer.token). Raises LakeError if it can't be written down."""
    _write(lake, {"token": token})


def revoke_issued_before(lake: Path, customer_id: int | None, moment: datetime) -> None:
    """Ends the tokens of a customer, or (None) of all operators, that were issued before a moment. Raises LakeError."""
    _write(lake, {"customer_id": customer_id, "issued_before": moment.timestamp()})


def _write(lake: Path, revocation: Mapping[str, Any]) -> None:
    name = hashlib.sha256(json.dumps(revocation, sort_keys=True).encode()).hexdigest()[:32]
    write_once(lake / FOLDER / f"{name}.json", revocation)


class Revoked:
    """The revocations of a lake, those of a second ago at the oldest. What was read is never forgotten."""

    def __init__(self, lake: Path) -> None:
        self._folder = lake / FOLDER
        self._read: set[str] = set()
        self._tokens: set[str] = set()
        self._before: dict[int | None, float] = {}
        self._refreshed_at = -math.inf
        self._refreshing = Lock()

    def __contains__(self, viewer: Viewer) -> bool:
        """Whether the viewer's token was revoked. Raises LakeError if that can't be said."""
        with self._refreshing:
            if time.monotonic() - self._refreshed_at >= _EVERY_SECONDS:
                self._refresh()
                self._refreshed_at = time.monotonic()
        return viewer.token in self._tokens or viewer.issued < self._before.get(viewer.customer_id, -math.inf)

    def _refresh(self) -> None:
        try:
            found = {path.name for path in self._folder.iterdir() if path.suffix == ".json"}
        except FileNotFoundError:
            return
        except OSError as error:
            raise LakeError(f"{self._folder} can't be read: {error.strerror}") from error
        for name in found - self._read:
            self._add(self._folder / name)
            self._read.add(name)

    def _add(self, path: Path) -> None:
        try:
            revocation = json.loads(path.read_text())
            if "token" in revocation:
                self._tokens.add(str(revocation["token"]))
            else:
                holder, moment = revocation["customer_id"], float(revocation["issued_before"])
                self._before[holder] = max(moment, self._before.get(holder, moment))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LakeError(f"{path} can't be read: it says which tokens hold no longer") from error
