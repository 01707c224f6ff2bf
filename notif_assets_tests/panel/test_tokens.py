"""Tokens: only what one of the keys signed, for this panel, unexpired, in one of two roles, is somebody."""

import base64
import json
from contextlib import suppress
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


def claims_in_numbers() -> dict[str, Any]:
    """As claims, in what JSON has."""
    return claims(exp=(datetime.now(UTC) + HOUR).timestamp())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


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
        {"exp": 1e15},
        {"exp": 1e300},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": [1]},
        {"exp": {}},
        {"iat": float("inf")},
        {"iat": float("nan")},
        {"iat": "now"},
        {"iat": []},
        {"nbf": float("inf")},
        {"sub": 7},
        {"jti": 7},
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


@given(st.dictionaries(st.sampled_from(["exp", "iat", "nbf", "aud", "sub", "jti", "role", "customer_id"]), _JSON))
def test_claims_of_any_kind_are_a_viewer_or_refused(strange: dict[str, Any]) -> None:
    """A platform signs what it likes."""
    token = jwt.api_jws.PyJWS().encode(json.dumps(claims_in_numbers() | strange).encode(), SECRET, "HS256")
    with suppress(TokenRefused):
        assert Keys(SECRET).viewer(token).expires > datetime.now(UTC) - HOUR


def test_a_text_nested_deeply_is_refused() -> None:
    deep = b"[" * 100_000
    for token in (jwt.api_jws.PyJWS().encode(deep, SECRET, "HS256"), f"{_base64(deep)}.{_base64(deep)}.x"):
        with pytest.raises(TokenRefused):
            Keys(SECRET).viewer(token)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_another_spelling_of_a_token_is_the_same_person() -> None:
    keys = Keys(SECRET)
    for minted in (keys.mint(None, HOUR), jwt.encode(claims(role="operator", customer_id=None), SECRET, "HS256")):
        assert keys.viewer(minted).person == keys.viewer(f"{minted}=").person


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


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o620, 0o666, 0o700 | 0o010])
def test_a_key_that_others_may_read_or_write_is_refused(tmp_path: Path, rights: int) -> None:
    settings = Settings(data=tmp_path)
    token = Keys.of(settings).mint(7, HOUR)
    kept = tmp_path / "panel.key"
    kept.chmod(rights)
    with pytest.raises(KeyRefused, match=f"panel.key may be read or written by others .{rights:o}.; .* `chmod 600 "):
        Keys.of(settings)
    kept.chmod(0o400)
    assert Keys.of(settings).viewer(token).customer_id == 7


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"\xff" * 40])
def test_a_kept_key_that_is_none_is_named_with_its_file(tmp_path: Path, content: bytes) -> None:
    settings = Settings(data=tmp_path)
    Keys.of(settings)
    (tmp_path / "panel.key").write_bytes(content)
    with pytest.raises(KeyRefused, match=r"panel\.key .*remove it for a new"):
        Keys.of(settings)
