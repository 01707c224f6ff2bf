"""Every command explains itself. Belongs here: --help, and what a command that is called wrongly says."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from notif_assets.cli import main
from notif_assets_tests.cli.deployment import Deployment, ok, refusal
from notif_assets_tests.conftest import Deploy


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


@pytest.fixture(scope="module")
def deployment(deploy: Deploy) -> Deployment:
    return deploy(1)


@pytest.mark.parametrize("command", [*_commands(main)], ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"], prog_name="notif-assets")
    assert result.exit_code == 0
    if command != ("report",):
        assert f"Example: notif-assets {' '.join(command)}" in result.stdout or (
            "Example: NOTIF_" in result.stdout and f" notif-assets {' '.join(command)}" in result.stdout
        )


@pytest.mark.parametrize("command", [*_commands(main)], ids=" ".join)
def test_the_first_line_of_a_command_s_help_is_whole(command: tuple[str, ...]) -> None:
    found: click.Command = main
    for name in command:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    assert not found.get_short_help_str(limit=60).endswith("...")


def test_help_of_the_whole(deployment: Deployment) -> None:
    said = ok(deployment.run("--help")).text
    assert "Example, on the embedded broker:" in said
    assert all(f"\n  {name}" in said for name in main.commands)


def test_help_comes_at_once() -> None:
    """Nothing is imported for it that takes long."""
    program = (
        "import sys; from notif_assets.cli import main; main(['--help'], standalone_mode=False); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    imported = set(told.stdout.splitlines()[-1].split())
    assert {"click", "notif_assets"} <= imported
    assert not {"confluent_kafka", "dagster", "deltalake", "duckdb", "kafka", "numpy", "pandas", "pyarrow"} & imported


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option"),
        (["report", "panel", "--format", "xml"], "'xml' is not one of 'text', 'csv', 'json', 'parquet'"),
        (["report", "panel", "--customer", "Acme"], "'Acme' is not a valid integer"),
        (["report", "billing"], "say which days: --date, or --from and --to"),
        (["report", "billing", "--date", "2020-02-30"], "'2020-02-30' is no date; write it as 2020-02-03"),
        (["report", "billing", "--from", "2020-02-03", "--to", "2020-02-02"], "--to is before --from"),
        (["report", "billing", "--date", "2020-02-03", "--to", "2020-02-04"], "--date stands alone"),
        (["report", "chatbot", "--from", "2019-12-16T24", "--to", "2019-12-17"], "neither a date like 2019-12-16 nor"),
        (["report", "invoice-averages", "--month", "2020-13"], "'2020-13' is no month; write it as 2020-01"),
        (["report", "invoice-averages"], "Missing option '--month'"),
        (["close-day", "03/02/2020"], "'03/02/2020' is no date; write it as 2020-02-03"),
        (["close-day"], "Missing argument 'DATE'"),
        (["import-invoices"], "Missing argument 'FILE…'"),
        (["accept-loss", "--batch", "0"], "0 is not in the range x>=1"),
        (["readmit", "--reason", "tired"], "'tired' is no reason; there are tombstone, oversized"),
        (["produce", "--rate", "0"], "0 is not in the range x>=1"),
        (["produce", "--seconds", "0"], "0.0 is not in the range x>0"),
        (["broker", "--partitions", "0"], "0 is not in the range 1<=x<=1000"),
        (["erase", "--customer", "0", "--yes"], "0 is not in the range x>=1"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_told_in_one_line(deployment: Deployment, arguments: list[str], said: str) -> None:
    answer = deployment.call(*arguments)
    assert said in refusal(answer)
    assert answer.code == 2
    assert answer.out == b""
    assert deployment.files() == {}


def test_a_wrong_call_as_a_process(deployment: Deployment) -> None:
    answer = deployment.run("report", "billing", "--date", "2020-02-30")
    assert answer.code == 2
    assert refusal(answer).endswith("is no date; write it as 2020-02-03 (see notif-assets report billing --help)")
