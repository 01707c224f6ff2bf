"""The serving copy: tables of the lake in PostgreSQL, an asset for each.

Belongs here: the assets, the checks that hold them to the lake, what the UI shows of them. Doesn't: copying and
comparing (serving/), when it runs (sensors.py, schedules.py). There are none unless NOTIF_SERVING_URL is set.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from notif_assets.defs.assets.specs import OWNERS, described
from notif_assets.errors import NotifError
from notif_assets.lake import SCHEMAS, Lake
from notif_assets.serving.audit import PARTS, difference
from notif_assets.serving.copying import Copied, serve
from notif_assets.serving.layout import served
from notif_assets.serving.postgres import connected
from notif_assets.settings import Settings

POOL = "serving"
CHECK = "copy_equals_lake"


def key_of(table: str) -> dg.AssetKey:
    """The asset that is the copy of a table."""
    return dg.AssetKey(["serving", table])


def copies(settings: Settings) -> dg.AssetsDefinition:
    """The assets of one deployment. One op makes all: a run every few seconds must not open a connection for each."""

    @dg.multi_asset(
        name="serving", specs=[_spec(name) for name in served(with_chatbot=settings.serving_chatbot)], pool=POOL
    )
    def serving(
        lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.MaterializeResult[None]]:
        done: list[Copied] = []
        failed = None
        try:
            serve(lake, settings, tell=done.append)
        except NotifError as error:
            failed = str(error)
        yield from map(_result, done)  # a table that is refused does not hold up the others
        if failed is not None:
            raise dg.Failure(failed, allow_retries=False)

    return serving


def _spec(name: str) -> dg.AssetSpec:
    metadata = described(name)["metadata"]
    return dg.AssetSpec(
        key_of(name),
        deps=[name],
        description=f"{SCHEMAS[name].meaning} The copy in PostgreSQL; for people there is the view bi.{name}.",
        group_name="serving",
        kinds={"postgres"},
        owners=OWNERS,
        code_version="1",
        metadata={**metadata, "dagster/table_name": f"serving.{name}"},
        skippable=True,
    )


def _result(copied: Copied) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        asset_key=key_of(copied.table),
        metadata={"lake_version": copied.version, "rows_that_came": copied.came, "rows_that_went": copied.went},
    )


def copy_checks(settings: Settings) -> dg.AssetChecksDefinition:
    """The checks of one deployment: every table of the copy has the rows of the lake at its watermark."""
    names = served(with_chatbot=settings.serving_chatbot)
    description = "The copy has the lake's rows at its version: the two newest days, and of history a part every hour."

    @dg.multi_asset_check(
        name=CHECK,
        specs=[dg.AssetCheckSpec(CHECK, asset=key_of(name), description=description) for name in names],
        pool=POOL,
    )
    def copy_equals_lake(
        lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.AssetCheckResult]:
        part = int(datetime.now(UTC).timestamp()) // 3600 % PARTS
        try:
            with connected(settings.serving_url) as connection:
                found = {name: difference(connection, lake, name, part) for name in names}
        except NotifError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        for name, differs in found.items():
            yield dg.AssetCheckResult(
                check_name=CHECK,
                asset_key=key_of(name),
                passed=differs is None,
                description=differs or "the same rows",
            )

    return copy_equals_lake
