"""The web page and its tokens.

Belongs here: these commands' names, options, help, exit codes and what they print. Doesn't: any work: each calls the
functions or jobs that the assets use too. Libraries that a command does not need are not imported for it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from notif_assets.cli.shared import existing_lake, lake_of
from notif_assets.settings import Settings


@click.command()
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is every one, and wants a proxy with TLS in front (docs/nginx.conf).",
)
@click.pass_obj
def panel(settings: Settings, port: int, host: str) -> None:
    """Serve the panel until Ctrl-C. It has customers' pages, the operator's page, and the API under /api/v1.

    It only reads the lake. Who may see what is said by tokens; `notif-assets token` mints them.

    \b
    Example: notif-assets panel --port 8000
    """
    from notif_assets.instance.location import set_instance_environment
    from notif_assets.panel import memory

    memory.limit_allocators()  # before what follows imports pyarrow
    from notif_assets.panel.app import serve

    set_instance_environment(settings)
    with _panel_keys():
        serve(settings, host, port, lambda: click.echo(f"panel at http://{host}:{port}; Ctrl-C ends it"))


@click.command()
@click.option("--customer", type=click.IntRange(1, 2**63 - 1), help="For this customer (id).")
@click.option("--operator", is_flag=True, help="For an operator, who sees every customer.")
@click.option(
    "--days", type=click.FloatRange(0, 3650, min_open=True), help="How long.  [default: 30; of an operator 1]"
)
@click.option("--link", is_flag=True, help="The address that takes the token, instead of the token alone.")
@click.pass_obj
def token(settings: Settings, customer: int | None, operator: bool, days: float | None, link: bool) -> None:
    """Mint a token for the panel. It shows that customer's numbers, or everybody's, until it expires or is revoked.

    Standard error says until when it is good, and how to revoke it.

    \b
    Example: notif-assets token --customer 7494212 --days 30 --link
    """
    from notif_assets.panel.tokens import Keys

    if operator == (customer is not None):
        raise click.UsageError("say for whom: --customer ID or --operator")
    lasts = timedelta(days=days or (_OPERATOR_DAYS if operator else _CUSTOMER_DAYS))
    with _panel_keys():
        keys = Keys.of(settings)
        minted = keys.mint(customer, lasts)
    viewer = keys.viewer(minted)
    click.echo(f"{settings.panel_url}/entrar?t={minted}" if link else minted)
    click.echo(
        f"good until {viewer.expires:%Y-%m-%dT%H:%M:%SZ}; `notif-assets revoke --id {viewer.token}` ends it before",
        err=True,
    )
    if customer is not None and (why := _unknown_customer_reason(settings, customer)):
        click.echo(f"Warning: customer {customer} was never seen ({why}): its page is empty until it is", err=True)


_CUSTOMER_DAYS, _OPERATOR_DAYS = 30.0, 1.0


def _unknown_customer_reason(settings: Settings, customer: int) -> str:
    """Why a customer is not known, if it isn't. Nothing is created."""
    from notif_assets.lake import LakeError
    from notif_assets.notifications.queries import Unknown, customer_names

    with lake_of(settings) as lake:
        try:
            if not lake.exists():
                return f"there is no lake at {settings.lake}"
            customer_names(lake, customer)
        except Unknown:
            return "no message of it was counted"
        except LakeError as error:
            return str(error)
    return ""


class _Moment(click.ParamType[datetime]):
    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            if moment.tzinfo is None or moment > datetime.now(UTC):
                raise ValueError(value)
        except ValueError:
            self.fail(f"{value!r} is no moment of the past; write it as 2026-02-03T14:00:00Z", param, ctx)
        return moment


@click.command()
@click.option("--id", "token_id", help="The token of this id, which `token` said when it minted it.")
@click.option("--token", "text", help="This token, or the link with it; - reads it from standard input.")
@click.option("--customer", type=click.IntRange(1, 2**63 - 1), help="All tokens of this customer (id).")
@click.option("--operators", is_flag=True, help="All tokens of all operators.")
@click.option("--issued-before", "before", type=_Moment(), help="Of all, those issued before then.  [default: now]")
@click.pass_obj
def revoke(
    settings: Settings,
    token_id: str | None,
    text: str | None,
    customer: int | None,
    operators: bool,
    before: datetime | None,
) -> None:
    """End tokens of the panel before their time.

    One, or all of a customer or of the operators that were issued up to a moment.

    It is written into the lake's folder; every panel on that lake refuses them from the next second on, for good.

    \b
    Example: notif-assets revoke --customer 7494212
             notif-assets revoke --id 5f0c2a9be1d64c37
    """
    from notif_assets.panel.revoked import revoke_issued_before, revoke_token

    if sum((token_id is not None, text is not None, customer is not None, operators)) != 1:
        raise click.UsageError("say what: one of --id, --token, --customer and --operators")
    if before is not None and customer is None and not operators:
        raise click.UsageError("--issued-before goes with --customer or --operators")
    lake = existing_lake(settings)
    if customer is not None or operators:
        moment = before or datetime.now(UTC)
        revoke_issued_before(lake.root, customer, moment)
        holders = f"customer {customer}" if customer is not None else "operators"
        click.echo(
            f"tokens of {holders} that were issued before {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} are revoked"
        )
    else:
        name = token_id or _id_of_token(settings, text or "")
        revoke_token(lake.root, name)
        click.echo(f"token {name} is revoked")


def _id_of_token(settings: Settings, text: str) -> str:
    from notif_assets.panel.tokens import Keys, TokenRefused

    whole = sys.stdin.readline() if text == "-" else text
    with _panel_keys():
        keys = Keys.of(settings)
    try:
        return keys.viewer(whole.strip().rpartition("/entrar?t=")[2]).token
    except TokenRefused:
        raise click.ClickException("no token of this panel's key, or one that has expired already") from None


@contextmanager
def _panel_keys() -> Iterator[None]:
    from notif_assets.panel.tokens import KeyRefused

    try:
        yield
    except KeyRefused as error:
        raise click.ClickException(str(error)) from None
