"""PostgreSQL: a connection to the copy, and what can go wrong there as one clear line.

Belongs here: psycopg, an extra that only this room asks for. Doesn't: what is asked over the connection.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import SecretStr

from notif_assets.errors import Refusal, Unavailable

if TYPE_CHECKING:
    import psycopg

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

_CONNECT_SECONDS = 5
_LOCK_SECONDS = 60
REBUILD = "`notif-assets serve --rebuild` makes it anew from this lake"


class ServingRefused(Refusal):
    """The copy is not what was left there, or its user may not write it: a person must decide."""


class ServingUnavailable(Unavailable):
    """PostgreSQL is out of reach, or can't do what it is asked now; the copy catches up later."""


@contextmanager
def connected(url: SecretStr | None) -> Iterator[Connection]:
    """A connection that commits each statement outside of a transaction; errors on it are told as ours.

    Raises ServingUnavailable, ServingRefused.
    """
    if url is None:
        raise ServingRefused("NOTIF_SERVING_URL is not set: set it to postgresql://user:password@host:5432/database")
    if importlib.util.find_spec("psycopg") is None:
        raise ServingRefused("NOTIF_SERVING_URL needs psycopg: `pip install 'notif-assets[serving]'`")
    with as_serving_errors(), _open(url.get_secret_value()) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute(f"set lock_timeout = '{_LOCK_SECONDS}s'".encode())
        connection.execute("set client_min_messages = 'warning'")
        (encoding,) = connection.execute("show server_encoding").fetchone() or ("",)
        if encoding != "UTF8":
            raise ServingRefused(f"the database of NOTIF_SERVING_URL is in {encoding}: want one in UTF8")
        yield connection


def _open(url: str) -> Connection:
    import psycopg

    _require_address(url)
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name="notif-assets",
            client_encoding="utf8",
            # A server that vanished is noticed within a minute, also by the connection that waits for it.
            keepalives_idle=20,
            keepalives_interval=10,
            keepalives_count=3,
            tcp_user_timeout=60_000,
        )
    except psycopg.OperationalError as error:
        raise ServingUnavailable(f"PostgreSQL can't be reached (NOTIF_SERVING_URL): {_line(error)}") from None


def _require_address(url: str) -> None:
    """Raises ServingRefused for what is no address; libpq's own text would show parts of it, and so the password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        port = str(conninfo_to_dict(url).get("port") or "5432")
        is_address = all(part.isdecimal() for part in port.split(","))
    except psycopg.Error:
        is_address = False
    if not is_address:
        raise ServingRefused(
            "NOTIF_SERVING_URL can't be read: want postgresql://user:password@host:5432/database, with each character "
            "of the password that is no letter and no digit as %XX"
        )


@contextmanager
def as_serving_errors() -> Iterator[None]:
    """Tells what PostgreSQL says as ours, without the values that it would show."""
    import psycopg

    try:
        yield
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise ServingRefused(
            f"the user of NOTIF_SERVING_URL may not write there ({_line(error)}): give it a database of its own, or "
            "`grant create on database … to …`"
        ) from None
    except psycopg.errors.UniqueViolation as error:
        raise ServingRefused(
            f"table serving.{error.diag.table_name} holds a row that the lake has yet to bring: it was changed by "
            f"hand; {REBUILD}"
        ) from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName) as error:
        raise ServingRefused(f"the copy was changed by hand ({_line(error)}): {REBUILD}") from None
    except psycopg.errors.DependentObjectsStillExist as error:
        raise ServingRefused(f"PostgreSQL refuses ({_line(error)}): drop those, then run it again") from None
    except psycopg.Error as error:
        raise ServingUnavailable(
            f"PostgreSQL could not do it ({_line(error)}): nothing of it is there, and it is tried again"
        ) from None


def _line(error: "psycopg.Error") -> str:
    """The first line of what PostgreSQL says, which shows no value of a row."""
    message = error.diag.message_primary or str(error).strip().partition("\n")[0]
    return " ".join(message.split())
