"""Tokens that are revoked end at once, in every process of the panel, and no others do."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.lake import LakeError
from notif_assets.panel import revoked
from notif_assets.panel.revoked import Revoked, revoke_issued_before, revoke_token
from notif_assets.panel.tokens import Keys, Viewer
from notif_assets_tests.cli.deployment import Answer, Deployment, refusal, until
from notif_assets_tests.cli.messages import ACME, PADARIA
from notif_assets_tests.panel.conftest import UNKNOWN, Served

NOW = datetime(2026, 2, 3, 14, tzinfo=UTC)


def viewer(customer_id: int | None = 7, token: str = "one", age: timedelta = timedelta(0)) -> Viewer:
    """Somebody whose token was issued `age` before NOW."""
    return Viewer(customer_id, NOW + timedelta(days=30), token, (NOW - age).timestamp())


def test_one_token_is_revoked(tmp_path: Path) -> None:
    revoke_token(tmp_path, "one")
    assert viewer() in Revoked(tmp_path)
    assert viewer(token="another") not in Revoked(tmp_path)


@given(st.sampled_from([7, 8, None]), st.integers(-5, 5), st.lists(st.integers(-5, 5), max_size=3))
def test_what_was_issued_before_the_latest_moment_is_revoked(
    tmp_path_factory: pytest.TempPathFactory, whom: int | None, age: int, moments: list[int]
) -> None:
    lake = tmp_path_factory.mktemp("lake")
    for seconds in moments:
        revoke_issued_before(lake, 7, NOW - timedelta(seconds=seconds))
    ended = whom == 7 and any(age > seconds for seconds in moments)
    assert (viewer(whom, age=timedelta(seconds=age)) in Revoked(lake)) == ended


def test_a_token_that_does_not_say_when_it_was_issued_is_older_than_any(tmp_path: Path) -> None:
    known = Revoked(tmp_path)
    silent = Viewer(None, NOW, "one")
    assert silent not in known
    revoke_issued_before(tmp_path, None, datetime(1970, 1, 2, tzinfo=UTC))
    assert silent in Revoked(tmp_path)
    assert viewer(None) not in Revoked(tmp_path)


def test_what_is_minted_right_after_a_revocation_is_good(tmp_path: Path) -> None:
    keys = Keys("s" * 32)
    old = keys.viewer(keys.mint(7, timedelta(days=1)))
    revoke_issued_before(tmp_path, 7, datetime.now(UTC))
    new = keys.viewer(keys.mint(7, timedelta(days=1)))
    assert old in Revoked(tmp_path)
    assert new not in Revoked(tmp_path)


def test_a_revocation_is_seen_by_who_looked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoked, "_EVERY_SECONDS", 0.0)
    known = Revoked(tmp_path)
    assert viewer() not in known
    for name in ("one", "another", "one"):
        revoke_token(tmp_path, name)
        assert viewer(token=name) in known


def test_what_can_not_be_read_lets_nobody_in(tmp_path: Path) -> None:
    revoke_token(tmp_path, "one")
    for content in ("", "{}", "[]", "7", '{"customer_id": 7}', '{"customer_id": [7], "issued_before": 1}'):
        next((tmp_path / revoked.FOLDER).iterdir()).write_text(content)
        with pytest.raises(LakeError, match="says which tokens hold no longer"):
            viewer(token="another") in Revoked(tmp_path)  # noqa: B015 - to be asked is enough


@pytest.fixture
def minted(served: Served) -> dict[str, str]:
    """Tokens by what they are for."""
    whose = {"acme": ("--customer", ACME), "padaria": ("--customer", PADARIA), "operator": ("--operator",)}
    return {name: said(served.deployment.call("token", *whom)) for name, whom in whose.items()}


def said(answer: Answer) -> str:
    """The token of a command that minted one, and said nothing but until when it is good."""
    assert answer.code == 0, answer
    assert re.fullmatch(
        r"good until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ; `notif-assets revoke --id [0-9a-f]{16}` ends it before\n",
        answer.err,
    ), answer.err
    return answer.text.strip()


def _status(served: Served, token: str) -> int:
    return served.bare("/", Authorization=f"Bearer {token}").status_code


def _ends(served: Served, tokens: dict[str, str], ended: str, *command: object) -> None:
    """The command ends the token of that name, in the panel's process and in one that starts now, and no others."""
    assert {_status(served, token) for token in tokens.values()} == {303}
    answer = served.deployment.call("revoke", *command)
    assert (answer.code, answer.err) == (0, "")
    until(lambda: _status(served, tokens[ended]) == 401, "the revocation", 10)
    assert served.bare(f"/entrar?t={tokens[ended]}").status_code == 401
    assert {_status(served, token) for name, token in tokens.items() if name != ended} == {303}
    again = served.deployment.call("revoke", *command)
    assert (again.code, again.err) == (0, "")


def test_a_token_is_revoked_by_its_id(served: Served, minted: dict[str, str]) -> None:
    minted["another"] = said(another := served.deployment.call("token", "--customer", ACME))
    _ends(served, minted, "another", "--id", another.err.split("--id ")[1].split("`")[0])


@pytest.mark.parametrize("form", ["{}", "http://127.0.0.1:8000/entrar?t={}"])
def test_a_token_is_revoked_by_itself_or_its_link(served: Served, minted: dict[str, str], form: str) -> None:
    _ends(served, minted, "acme", "--token", form.format(minted["acme"]))


def test_all_tokens_of_a_customer_and_of_operators_are_revoked(served: Served) -> None:
    deployment = served.deployment
    for whom, command in ((("--customer", UNKNOWN), ("--customer", UNKNOWN)), (("--operator",), ("--operators",))):
        ended = deployment.call("token", *whom).text.strip()
        assert _status(served, ended) == 303
        assert deployment.call("revoke", *command, "--issued-before", "2020-02-03T14:00:00Z").code == 0
        assert deployment.call("revoke", *command).code == 0
        until(lambda token=ended: _status(served, token) == 401, "the revocation", 10)
        assert _status(served, deployment.call("token", *whom).text.strip()) == 303
    assert _status(served, served.token(ACME)) == 303
    served.forget(None)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((), "say what: one of --id, --token, --customer and --operators"),
        (("--id", "x", "--customer", 7), "say what"),
        (("--customer", 0), "is not in the range"),
        (("--id", "x", "--issued-before", "2020-02-03T14:00:00Z"), "--issued-before goes with"),
        (("--customer", 7, "--issued-before", "2999-02-03T14:00:00Z"), "no moment of the past"),
        (("--customer", 7, "--issued-before", "2020-02-03T14:00:00"), "no moment of the past"),
        (("--token", "nonsense"), "no token of this panel's key"),
    ],
)
def test_what_revoke_does_not_understand_is_refused(served: Served, command: tuple[object, ...], why: str) -> None:
    before = served.deployment.files()
    assert why in refusal(served.deployment.call("revoke", *command))
    assert served.deployment.files() == before


def test_a_token_says_until_when_it_holds(served: Served) -> None:
    for whom, days in ((("--customer", ACME), 30), (("--operator",), 1), (("--operator", "--days", 7), 7)):
        began = datetime.now(UTC).replace(microsecond=0)
        answer = served.deployment.call("token", *whom)
        said(answer)
        ends = datetime.fromisoformat(answer.err.split()[2].rstrip(";"))
        assert timedelta(0) <= ends - began - timedelta(days=days) <= timedelta(seconds=30)


def test_a_customer_never_seen_is_warned_of(served: Served, tmp_path: Path) -> None:
    nowhere = Deployment(tmp_path, "127.0.0.1:1", "nothing", 1)
    for deployment, why in (
        (served.deployment, "no message of it was counted"),
        (nowhere, f"there is no lake at {tmp_path}/data/lake"),
    ):
        answer = deployment.call("token", "--customer", UNKNOWN)
        assert answer.code == 0
        assert len(answer.text.splitlines()) == 1
        warning = answer.err.splitlines()[1]
        assert warning == f"Warning: customer {UNKNOWN} was never seen ({why}): its page is empty until it is"
    assert sorted(nowhere.files()) == ["panel.key"]
