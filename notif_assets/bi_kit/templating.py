"""Filling the kit's templates.

Belongs here: where templates lie, how they are filled, identifiers that are the same in every kit. Doesn't: what is
filled in (power_bi.py, superset.py, metabase.py).
"""

import json
from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import Any
from uuid import UUID, uuid5

from jinja2 import Environment, PackageLoader, StrictUndefined

_FOLDER = "templates"
_KIT = UUID("5f0c9a52-7a5f-4b9e-9d7c-0b1a6e5d2c11")


def identifier(*names: str) -> str:
    """The identifier of what these names name: the same in every kit, so that a newer one replaces it."""
    return str(uuid5(_KIT, "/".join(names)))


def filled(template: str, **values: Any) -> str:
    """A template with the values. Raises jinja2.UndefinedError for a value that it wants and does not get."""
    return _environment().get_template(template).render(**values)


def templates_in(folder: str) -> Iterator[str]:
    """The templates of a folder, below it too, in the order of their names."""
    for name in _environment().list_templates():
        if name.startswith(f"{folder}/"):
            yield name


@cache
def _environment() -> Environment:
    """For texts that are no HTML: nothing is escaped."""
    found = Environment(  # noqa: S701
        loader=PackageLoader("notif_assets.bi_kit", _FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.globals["identifier"] = identifier
    found.filters |= {"m_text": _m_text, "m_datetime": _m_datetime, "indent_tabs": _indent_tabs, "json": _json}
    return found


def _m_text(value: str) -> str:
    """A text in Power Query's language.

    >>> print(_m_text('a "b" c'))
    "a ""b"" c"
    """
    return '"' + value.replace('"', '""') + '"'


def _m_datetime(day: date) -> str:
    """A day's beginning in Power Query's language.

    >>> _m_datetime(date(2020, 2, 3))
    '#datetime(2020, 2, 3, 0, 0, 0)'
    """
    return f"#datetime({day.year}, {day.month}, {day.day}, 0, 0, 0)"


def _indent_tabs(text: str, tabs: int) -> str:
    return "\n".join("\t" * tabs + line for line in text.splitlines())


def _json(value: object) -> str:
    """A value as JSON has it, and YAML too."""
    return json.dumps(value, ensure_ascii=False)
