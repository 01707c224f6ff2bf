"""What came from outside reaches a terminal, and Dagster's Markdown, only escaped.

Belongs here: hostile names and messages at a real terminal, in an error, in what a check found, in a run's metadata.
Doesn't: the pages of the panel (panel/test_access.py), layouts of reports (reports/).
"""

import os
import pty
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notif_assets.billing.price_list import PRICE_LIST_SCHEMA, parse_price_list, price_list_cell
from notif_assets.core.texts import escape_controls, escape_markdown, quote_odd
from notif_assets.defs.assets.invoices import preview
from notif_assets_tests.cli.deployment import COMMAND, Deployment, ok, refusal
from notif_assets_tests.cli.messages import ACME, notification
from notif_assets_tests.conftest import Deploy

RED = "\x1b[31m\x9b31m\x1b]0;title\x07\r\u202e"
PICTURE = "![x](http://evil.example/p.png)<img src=x>"


@pytest.fixture(scope="module")
def hostile(deploy: Deploy) -> Deployment:
    """Yesterday's message with control characters in its payload, of a channel without a price that is a picture."""
    deployment = deploy(1)
    moment = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    deployment.send([notification(moment, "one", payload=f"a{RED}b", channel=PICTURE)])
    ok(deployment.call("ingest", "--until-caught-up"))
    return deployment


def _at_a_terminal(deployment: Deployment, *arguments: object) -> bytes:
    """What a command shows at a terminal of its own."""
    ours, its = pty.openpty()
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, cwd=deployment.home, env=deployment.environment(), stdout=its, stderr=its):
        os.close(its)
        told = b""
        try:
            while piece := os.read(ours, 2**16):
                told += piece
        except OSError:  # its other end is closed
            pass
        os.close(ours)
    return told.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("format", ["text", "csv", "json", "parquet"])
def test_a_report_at_a_terminal_is_escaped_and_in_a_pipe_as_it_is(hostile: Deployment, format: str) -> None:
    command = ("report", "detailed", "--customer", ACME, "--format", format)
    told = _at_a_terminal(hostile, *command)
    assert told
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told.decode())
    if format == "csv":
        assert rb"\u001b[31m" in told
        assert f"a{RED}b".encode() in ok(hostile.call(*command)).out


def test_what_has_no_price_is_named_without_doing_anything(hostile: Deployment) -> None:
    day = str((datetime.now(UTC) - timedelta(days=1)).date())
    found = hostile.call("report", "billing", "--date", day)
    assert found.code == 1
    assert "[" not in found.err.split("channel ")[1].split(" has no price")[0]
    assert "http://" not in found.err
    assert "\\u005bx\\u005d" in found.err
    checked = hostile.call("check")
    assert "![" not in checked.text
    assert "<img" not in checked.text


def test_an_error_at_a_terminal_is_escaped(hostile: Deployment, tmp_path: Path) -> None:
    for command in (
        ("report", "chatbot", "--date", "2020-02-03", "--flow", RED),
        ("report", "invoice-averages", "--month", "2020-01", "--customer", RED),
        ("report", "panel", "--channel", RED, "--customer", 9),
        ("import-invoices", tmp_path / RED),
        ("import-prices", tmp_path / RED),
        ("close-day", RED),
        ("rebuild", RED),
        ("readmit", "--reason", RED),
        ("report", "panel", "--out", f"/dev/null/{RED}"),
        (RED,),
    ):
        line = refusal(hostile.call(*command))
        assert escape_controls(line) == line


def _rows(*texts: str) -> pa.Table:
    return pa.table({"customer": pa.array(texts, pa.string()), "month": pa.array([1] * len(texts))})


def _cells(table: str) -> list[str]:
    """The first cells of a table in Markdown below its header, unescaped as CommonMark says."""
    cells = [re.split(r"(?<!\\)(?:\\\\)*\|", line)[1].strip() for line in table.splitlines()[2:]]
    return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell) for cell in cells]


@pytest.mark.parametrize("text", [PICTURE, "007", "1e5", "a|b", "`code`", "<b>", "www.evil.example", "a\\|b", "_x_"])
def test_a_preview_shows_each_text_as_it_is(text: str) -> None:
    table = preview(_rows(text, "plain"))
    assert _cells(table) == [text, "plain"]
    assert not re.search(r"(?<!\\)[\[<!`_]", table.split("\n", 2)[2])


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf", "Cn", "Co"]), min_size=1))
def test_markdown_gives_the_text_back(text: str) -> None:
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", escape_markdown(text)) == text


@given(st.text(min_size=1))
def test_what_is_shown_is_inert_and_a_price_list_can_name_it(text: str) -> None:
    inert: Any = re.compile(r"[\[\]<>`*~|\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]|://")
    assert not inert.search(quote_odd(text))
    assert not inert.search(escape_controls(quote_odd(text)))
    if text.strip():
        header = ",".join(name for name in PRICE_LIST_SCHEMA.names)
        listed = f"{header}\n,{price_list_cell(text)},1,BRL,,\n".encode(errors="surrogatepass")
        (row,) = parse_price_list(listed, "p.csv").to_pylist()
        assert row["channel"] == text
