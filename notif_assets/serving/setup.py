"""Making the copy's tables and views in PostgreSQL, and noticing that somebody changed them.

Belongs here: when the layout is to be made. Doesn't: what it looks like (layout.py), rows (copying.py).
"""

from collections.abc import Sequence

from notif_assets.lake import SCHEMAS
from notif_assets.serving.layout import (
    READERS,
    STATE,
    column_type,
    columns,
    digest,
    dropped_views,
    reader_statements,
    served,
    table_statements,
    view_statements,
)
from notif_assets.serving.postgres import REBUILD, Connection, ServingRefused
from notif_assets.settings import Settings

_LOCK = 0x6E6F746966  # of this project's layout, so that one process at a time makes it


def prepare(connection: Connection, settings: Settings, *, anew: bool = False) -> tuple[str, ...]:
    """Makes what is missing of tables, views and role in one transaction; gives the tables that are to be copied.

    A table whose columns are others is made anew, empty, if this project has changed them since, or with `anew`.
    Raises ServingRefused if it was changed by hand.
    """
    names = served(with_chatbot=settings.serving_chatbot)
    if anew or not _is_made(connection, names, settings.timezone):
        with connection.transaction():
            connection.execute(f"select pg_advisory_xact_lock({_LOCK})".encode())
            _make(connection, names, settings.timezone)
    elif changed := _changed(connection, names):
        raise ServingRefused(f"table serving.{changed[0]} has other columns: it was changed by hand; {REBUILD}")
    return names


def has_readers(connection: Connection) -> bool:
    """Whether the role of the readers is there; its making takes a right that the user need not have."""
    found = connection.execute("select from pg_roles where rolname = %s", [READERS]).fetchone()
    return found is not None


def _is_made(connection: Connection, names: Sequence[str], zone: str) -> bool:
    if connection.execute("select to_regclass('serving.layout')").fetchone() == (None,):
        return False
    made = connection.execute("select digest from serving.layout").fetchall()
    return made == [(digest(names, zone, has_readers=has_readers(connection)),)]


def _make(connection: Connection, names: Sequence[str], zone: str) -> None:
    gone = set(served(with_chatbot=True)) - set(names)
    _run(connection, [*dropped_views(), *STATE])
    for name in {*_changed(connection, names), *gone}:
        connection.execute(f"drop table if exists serving.{name}".encode())
        connection.execute("delete from serving.watermarks where table_name = %s", [name])
        if name in names:
            _run(connection, table_statements(name))
    for name in names:
        connection.execute(
            "insert into serving.watermarks values (%s, -1, '', '{}', null) on conflict do nothing", [name]
        )
    _run(connection, [*view_statements(names, zone), *reader_statements()])
    connection.execute("delete from serving.layout")
    made = digest(names, zone, has_readers=has_readers(connection))
    connection.execute("insert into serving.layout values (%s)", [made])


def _run(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(statement.encode())


def _changed(connection: Connection, names: Sequence[str]) -> list[str]:
    """The tables that are not there, or have other columns than the catalogue says."""
    there: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in connection.execute(
        "select c.relname, a.attname, format_type(a.atttypid, a.atttypmod) from pg_class as c "
        "join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
        "where c.relnamespace = to_regnamespace('serving') and c.relkind = 'r' order by a.attnum"
    ):
        there.setdefault(table, []).append((column, kind))
    wanted = {name: [(c.name, column_type(c.type)) for c in columns(SCHEMAS[name])] for name in names}
    return [name for name in names if there.get(name) != wanted[name]]
