"""`python -m notif_assets_tests.docs.reference`: writes docs/reference/ from the code that it describes.

Belongs here: how settings, tables, commands and reasons look as Markdown. Doesn't: what any of them means: each says
so itself, where it is defined. test_reference.py holds the files to this.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import pyarrow as pa
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import notif_assets
from notif_assets.cli import main
from notif_assets.inbox.rows import MEANINGS
from notif_assets.lake.catalogue import SCHEMAS, Column, Schema
from notif_assets.maintenance.integrity import repair_hint
from notif_assets.notifications.validity import REASONS
from notif_assets.panel import metrics
from notif_assets.settings import Settings, variable

FOLDER = Path(notif_assets.__file__).resolve().parents[1] / "docs" / "reference"

_WRITTEN = "<!-- Written by `make docs`. Change the code, not this file. -->"
_HELP_WIDTH = 100
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_FOLDERS = {"lake_root": "NOTIF_DATA/lake", "inbox_root": "NOTIF_DATA/inbox", "reports_root": "NOTIF_DATA/reports"}
_ORIGINS = {
    "book": "a book: written once, never computed again",
    "derived": "derived: computed from the table before it",
    "received": "received: holds what came from outside",
}
_GROUPS = {
    "notifications": "Notifications",
    "billing": "Billing",
    "invoices": "Invoices",
    "chatbot": "Chatbot",
    "files": "Files",
}


def settings_page() -> str:
    """Every setting: variable, values, default, meaning."""
    rows = [
        (f"`{variable(name, field)}`", _values(field), _default(name, field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        "Each setting is an environment variable or a line of `.env` in the current folder; the environment wins. "
        "`notif_assets/settings.py` defines them. Durations are written as `90s`, `30m`, `1h` or `2d`. A `NOTIF_…` "
        "variable that is no setting is named in a warning, with the nearest that is one. A folder is "
        "one of this machine: `~` is expanded, an address with `://` is refused.",
        _table(("setting", "values", "default", "meaning"), rows),
    )


def tables_page() -> str:
    """Every table of the catalogue: where its rows come from, how it lies on disk, its columns."""
    parts = [
        "Delta Lake tables under `NOTIF_LAKE`, one folder each. `notif_assets/lake/catalogue.py` defines them. "
        "Timestamps are UTC in microseconds. Money is decimal. A column marked *since N* came with version N of the "
        "catalogue and is null in older rows. One marked *personal* is what `erase` and `NOTIF_PAYLOAD_DAYS` blank.",
        _table(
            ("table", "holds", "rows are"),
            [(f"[{s.name}](#{s.name})", s.meaning, s.origin) for s in SCHEMAS.values()],
        ),
    ]
    known = [*_GROUPS, *sorted({schema.group for schema in SCHEMAS.values()} - set(_GROUPS))]
    for group in known:
        schemas = [schema for schema in SCHEMAS.values() if schema.group == group]
        parts += [f"## {_GROUPS.get(group, group.capitalize())}", *(part for s in schemas for part in _table_of(s))]
    return _page("Tables", *parts)


def commands_page() -> str:
    """Every command's own help."""
    parts = ["`notif-assets` is in `.venv/bin`. Each text below is what `notif-assets COMMAND --help` prints."]
    for path, command in commands(main):
        parts += [f"## {' '.join(path)}", f"```text\n{_help(path, command)}\n```"]
    return _page("Commands", *parts)


def reasons_page() -> str:
    """Every reason for which a message or a row of a file is not accepted."""
    return _page(
        "Reasons",
        "## Messages",
        "A message that is not accepted is in `rejected_notifications` with one of these reasons. "
        "`notif_assets/notifications/validity.py` defines them. After a rule or a setting changed, "
        "`notif-assets readmit --reason REASON` tries the messages of one reason again.",
        _table(("reason", "meaning"), [(f"`{reason}`", meaning) for reason, meaning in REASONS.items()]),
        "## Rows of files",
        "A row of an invoice or answer file that is not accepted is in `rejected_file_rows` with one of these "
        "reasons; the other rows of the file are imported. A price list is taken whole or not at all. "
        "`notif_assets/inbox/rows.py` defines the reasons.",
        _table(("reason", "meaning"), [(f"`{reason}`", meaning) for reason, meaning in MEANINGS.items()]),
    )


def metrics_page() -> str:
    """Every number that the panel tells Prometheus."""
    own = [
        (family.name + "_total" * (family.type == "counter"), family.documentation, _names(of._labelnames))
        for of in (metrics.REQUESTS, metrics.SECONDS, metrics.EXPORTS, metrics.EXPORTED)
        for family in of.describe()
    ]
    header = ("metric", "meaning", "labels")
    parts = [
        "The panel serves them at `/metrics` to an operator's token. `notif_assets/panel/metrics.py` defines them; "
        "[the runbook](../runbook.md) says which of them alarm people."
    ]
    for title, numbers in metrics.SUBJECTS.items():
        rows = [(f"`{one.name}`", one.meaning, _names(one.labels)) for one in numbers]
        parts += [f"## {title}", _table(header, rows)]
    return _page("Metrics", *parts, "## The panel itself", _table(header, [(f"`{row[0]}`", *row[1:]) for row in own]))


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "tables.md": tables_page,
    "cli.md": commands_page,
    "reasons.md": reasons_page,
    "metrics.md": metrics_page,
}


def commands(group: click.Group, path: tuple[str, ...] = ("notif-assets",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command below a group, and the group itself before them, as (words, command)."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def _page(title: str, *parts: str) -> str:
    return "\n\n".join((_WRITTEN, f"# {title}", *parts)) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _values(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is dict:
        return "JSON object"
    if choices := _choices(kind):
        return ", ".join(f"`{choice}`" for choice in choices)
    words = {
        bool: "yes or no",
        int: "integer",
        float: "number",
        timedelta: "duration",
        date: "date",
        Path: "folder",
        SecretStr: "secret",
    }
    for known in (kind, *get_args(kind)):
        if known in words:
            return words[known]
    return "text"


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is not None and all(isinstance(a, str) for a in get_args(kind)) else ()


def _default(name: str, field: FieldInfo) -> str:
    if name in _FOLDERS:
        return f"`{_FOLDERS[name]}`"
    value = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
    if value is None or value is PydanticUndefined:
        return "unset"
    if isinstance(value, timedelta):
        value = _duration(value)
    return f"`{value}`{_size(value)}"


def _size(value: object) -> str:
    """What a large number of bytes is for people; nothing for other values."""
    whole_mebibytes = isinstance(value, int) and value >= 2**20 and value % 2**20 == 0
    return f" ({value // 2**20} MiB)" if whole_mebibytes and isinstance(value, int) else ""


def _duration(value: timedelta) -> str:
    """As it is written in the environment: the largest unit that divides it, hours rather than one day."""
    seconds = int(value.total_seconds())
    unit, size = next((u, s) for u, s in _UNITS if seconds % s == 0 and (seconds > s or s == 1 or u != "d"))
    return f"{seconds // size}{unit}"


def _table_of(schema: Schema) -> Iterator[str]:
    yield f"### {schema.name}"
    yield schema.meaning
    facts = [_ORIGINS[schema.origin][0].upper() + _ORIGINS[schema.origin][1:]]
    if schema.partition_by:
        facts.append(f"Partitioned by {_names(schema.partition_by)}")
    if schema.sort:
        facts.append(f"Compacted files are sorted by {_names(schema.sort)}")
    facts.append(f"If a file is lost: {repair_hint(schema.name)}")
    yield "\n".join(f"- {fact}." for fact in facts)
    rows = [(f"`{c.name}`", _type(c.type), "yes" if c.nullable else "", _meaning(c)) for c in schema.columns]
    yield _table(("column", "type", "may be null", "meaning"), rows)


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)


def _meaning(column: Column) -> str:
    notes = (["personal"] if column.personal else []) + ([f"since {column.since}"] if column.since > 1 else [])
    return f"{column.meaning} ({', '.join(notes)})" if notes else column.meaning


def _type(kind: pa.DataType) -> str:
    """The type's name in SQL, as DuckDB and Spark call it."""
    names = {"int32": "int", "int64": "bigint", "string": "varchar", "binary": "binary", "date32[day]": "date"}
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    if pa.types.is_map(kind):
        return f"map({_type(kind.key_type)}, {_type(kind.item_type)})"
    return names.get(str(kind), str(kind))


def _help(path: tuple[str, ...], command: click.Command) -> str:
    context = None
    for name in path[:-1]:
        context = click.Context(main, info_name=name, parent=context)
    own = click.Context(
        command, info_name=path[-1], parent=context, terminal_width=_HELP_WIDTH, help_option_names=["-h", "--help"]
    )
    return "\n".join(line.rstrip() for line in command.get_help(own).splitlines())


def write(folder: Path = FOLDER) -> None:
    """Writes every page into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
