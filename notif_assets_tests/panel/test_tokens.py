"""Tokens: only what one of the keys signed, for this panel, unexpired, in one of two roles, is somebody."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.panel.tokens import AUDIENCE, KeyRefused, Keys, TokenRefused
from notif_assets.settings import Settings

SECRET, OTHER = "s" * 32, "o" * 32
HOUR = timedelta(hours=1)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; None takes one away."""
    good = {"aud": AUDIENCE, "exp": datetime.now(UTC) + HOUR, "role": "customer", "customer_id": 7}
    return {name: value for name, value in (good | changes).items() if value is not None}


@given(st.integers(1, 2**63 - 1))
def test_what_is_minted_is_read(customer_id: int) -> None:
    keys = Keys(SECRET)
    viewer = keys.viewer(keys.mint(customer_id, HOUR))
    assert (viewer.customer_id, viewer.is_operator) == (customer_id, False)
    assert abs(viewer.expires - datetime.now(UTC) - HOUR) < timedelta(seconds=5)


def test_an_operator_is_one() -> None:
    keys = Keys(SECRET)
    token = keys.mint(None, HOUR)
    viewer = keys.viewer(token)
    assert viewer.is_operator
    assert viewer.token not in token


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": datetime.now(UTC) - timedelta(seconds=1)},
        {"exp": None},
        {"aud": None},
        {"aud": "another-service"},
        {"role": None},
        {"role": "admin"},
        {"role": "operator"},  # with a customer's id: which of the two?
        {"customer_id": None},
        {"customer_id": "7"},
        {"customer_id": True},
        {"customer_id": 7.0},
        {"customer_id": 0},
        {"customer_id": 2**63},
        {"customer_id": [7, 8]},
        {"nbf": datetime.now(UTC) + HOUR},
    ],
)
def test_other_claims_are_refused(wrong: dict[str, Any]) -> None:
    keys = Keys(SECRET)
    assert keys.viewer(jwt.encode(claims(), SECRET, "HS256")).customer_id == 7
    with pytest.raises(TokenRefused):
        keys.viewer(jwt.encode(claims(**wrong), SECRET, "HS256"))


@given(st.text())
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(TokenRefused):
        Keys(SECRET).viewer(text)


def test_another_key_and_no_key_are_refused() -> None:
    for token in (jwt.encode(claims(), OTHER, "HS256"), jwt.encode(claims(), "", "none")):
        with pytest.raises(TokenRefused):
            Keys(SECRET).viewer(token)


def test_two_keys_are_good_while_they_are_changed() -> None:
    old, new = Keys(OTHER), Keys(SECRET, OTHER)
    assert new.viewer(old.mint(7, HOUR)).customer_id == 7
    with pytest.raises(TokenRefused):
        old.viewer(new.mint(7, HOUR))


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
)
def test_a_public_key_verifies_what_a_platform_signed_and_can_mint_nothing(private: Any, algorithm: str) -> None:
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for written in (public, public.replace("\n", "\\n")):
        keys = Keys(written)
        assert keys.viewer(jwt.encode(claims(), private, algorithm)).customer_id == 7
        with pytest.raises(KeyRefused, match="only verifies"):
            keys.mint(7, HOUR)
    forged = jwt.api_jws.PyJWS().encode(b"{}", "x" * 32, "HS256")
    for token in (forged, jwt.encode(claims(), "x" * 64, "HS256")):
        with pytest.raises(TokenRefused):
            Keys(public).viewer(token)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(KeyRefused, match="private"):
        Keys(secret)


def test_a_public_key_is_no_secret() -> None:
    """The classic: the public key, which everybody has, taken as the secret of HS256."""
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}')
    body = jwt.utils.base64url_encode(jwt.encode(claims(), SECRET, "HS256").split(".")[1].encode())
    signed = header + b"." + body
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed, public)
    with pytest.raises(TokenRefused):
        Keys(public.decode()).viewer((signed + b"." + jwt.utils.base64url_encode(signature)).decode())


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(KeyRefused, match="32 bytes"):
        Keys("s" * 31)


def test_without_a_key_one_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    token = Keys.of(settings).mint(7, HOUR)
    assert Keys.of(settings).viewer(token).customer_id == 7
    kept = tmp_path / "data" / "panel.key"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["panel.key"]
