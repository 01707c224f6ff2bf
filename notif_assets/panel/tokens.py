"""Identities: signed tokens, minted here or by a platform that has the key.

Belongs here: keys, claims, what makes a token good. Doesn't: where a request carries it (access.py), which tokens hold
no longer though they are good (revoked.py).

A token is a JWT (RFC 7519): `aud` notif-assets-panel, `exp`, and `role`: `operator`, or `customer` with an integer
`customer_id`. `iat` says since when it is good and `jti` names it; without them it can be revoked all the same. `sub`
names an operator as a person, whatever tokens it shows. A secret signs and verifies (HS256); a public key only verifies
what its private half signed elsewhere. Two keys may be valid at once, so that one can be replaced without anybody's
link breaking.
"""

import hashlib
import math
import os
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from notif_assets.errors import Refusal
from notif_assets.settings import Settings

AUDIENCE = "notif-assets-panel"
_SHORTEST_SECRET = 32  # bytes, as RFC 7518 asks of HS256
_LARGEST_ID = 2**63 - 1


class KeyRefused(Refusal):
    """The key can't be used; the message says why and what to do."""


class TokenRefused(Refusal):
    """An unknown or expired token. The message does not say which."""


@dataclass(frozen=True)
class Viewer:
    """Who asks: a customer, or (None) an operator.

    `token` names the token without giving it away: its `jti`, else a hash of what is signed. `issued` is its `iat`, in
    seconds since 1970; a token without one counts as older than any. `subject` is its `sub`.
    """

    customer_id: int | None
    expires: datetime
    token: str
    issued: float = -math.inf
    subject: str = ""

    @property
    def is_operator(self) -> bool:
        """Whether all customers may be seen."""
        return self.customer_id is None

    @property
    def person(self) -> str:
        """Whom limits count: a customer, whatever tokens it shows; an operator by its `sub`, else by its token."""
        return f"operator {self.subject or self.token}" if self.customer_id is None else f"customer {self.customer_id}"


@dataclass(frozen=True)
class _Key:
    value: Any
    algorithms: tuple[str, ...]


class Keys:
    """The keys of a deployment: the first one signs, if it can; both verify."""

    def __init__(self, *texts: str) -> None:
        """Raises KeyRefused for a secret that is too short and for a PEM that is no public key."""
        self._keys = [_key(text) for text in texts]

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        """Those of the settings; without NOTIF_PANEL_KEY a secret in the data folder, made at the first use."""
        key = settings.panel_key.get_secret_value() if settings.panel_key else _kept_secret(settings.data / "panel.key")
        return cls(key, *([settings.panel_old_key.get_secret_value()] if settings.panel_old_key else []))

    def mint(self, customer_id: int | None, lasts: timedelta) -> str:
        """A token for a customer, or (None) for an operator. Raises KeyRefused if the key can only verify."""
        key = self._keys[0]
        if key.algorithms != ("HS256",):
            raise KeyRefused("NOTIF_PANEL_KEY is a public key, which only verifies: mint where the private one is")
        now = datetime.now(UTC)
        role_claims = {"role": "operator"} if customer_id is None else {"role": "customer", "customer_id": customer_id}
        # With fractions: what is minted right after all older tokens were revoked is not one of them.
        claims = {
            "aud": AUDIENCE,
            "iat": now.timestamp(),
            "exp": now + lasts,
            "jti": secrets.token_hex(8),
            **role_claims,
        }
        return jwt.encode(claims, key.value, "HS256")

    def viewer(self, token: str) -> Viewer:
        """Who the token is for. Raises TokenRefused."""
        for key in self._keys:
            try:
                claims = jwt.decode(
                    token, key.value, list(key.algorithms), audience=AUDIENCE, options={"require": ["exp", "aud"]}
                )
                return _viewer_of(claims, token)
            except _UNREADABLE:
                continue
        raise TokenRefused


# A number that is no moment, or a text nested too deeply, may be anywhere in what a stranger sends.
_UNREADABLE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, OSError, RecursionError)


def _viewer_of(claims: dict[str, Any], token: str) -> Viewer:
    # The signature's text is not signed: it can be written in several ways.
    signed = token.rpartition(".")[0]
    name = str(claims.get("jti") or "") or hashlib.sha256(signed.encode()).hexdigest()[:16]
    issued = claims.get("iat")
    return Viewer(
        _customer_of(claims),
        datetime.fromtimestamp(int(claims["exp"]), UTC),
        name,
        -math.inf if issued is None else float(issued),
        str(claims.get("sub") or ""),
    )


def _customer_of(claims: dict[str, Any]) -> int | None:
    customer = claims.get("customer_id")
    if claims.get("role") == "operator" and customer is None:
        return None
    if claims.get("role") == "customer" and type(customer) is int and 1 <= customer <= _LARGEST_ID:
        return customer
    raise TokenRefused


def _key(text: str) -> _Key:
    if not text.lstrip().startswith("-----BEGIN"):
        if len(text.encode()) < _SHORTEST_SECRET:
            raise KeyRefused(
                f"NOTIF_PANEL_KEY: a secret needs {_SHORTEST_SECRET} bytes or more; "
                "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes one"
            )
        return _Key(text, ("HS256",))
    try:
        # An environment variable often has its line breaks written as \n.
        public = load_pem_public_key(text.replace("\\n", "\n").strip().encode())
    except ValueError:
        raise KeyRefused("NOTIF_PANEL_KEY is in PEM but no public key; a private one does not belong here") from None
    for kind, algorithms in (
        (rsa.RSAPublicKey, ("RS256", "PS256")),
        (ec.EllipticCurvePublicKey, ("ES256", "ES384")),
        (ed25519.Ed25519PublicKey, ("EdDSA",)),
    ):
        if isinstance(public, kind):
            return _Key(public, algorithms)
    raise KeyRefused("NOTIF_PANEL_KEY: RSA, EC and Ed25519 keys can be used")


def _kept_secret(path: Path) -> str:
    """The secret in a file that only its owner reads; made if there is none, by whichever process is first. Raises
    KeyRefused for a file that others may read: they could sign as anybody."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        with path.open() as kept:
            rights = stat.S_IMODE(os.fstat(kept.fileno()).st_mode)
            secret = kept.read().strip()
    except OSError as error:
        raise KeyRefused(f"{path}: {error.strerror}; set NOTIF_PANEL_KEY instead") from None
    except UnicodeDecodeError:
        raise KeyRefused(f"{path} is no text; remove it for a new secret, which ends all links") from None
    if rights & 0o077:
        raise KeyRefused(f"{path} may be read or written by others ({rights:o}); if none did, `chmod 600 {path}`")
    if len(secret.encode()) < _SHORTEST_SECRET:
        raise KeyRefused(
            f"{path} has no secret of {_SHORTEST_SECRET} bytes; remove it for a new one, which ends all links"
        )
    return secret
