"""Price lists in the lake: loaded whole and never deleted. The newest one prices open days.

Belongs here: loading a list and finding one again. Doesn't: what a price is (price_list.py), which price a line
gets (sql/unit_prices.sql).
"""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pyarrow as pa

from notif_assets.billing.price_list import parse_price_list, price_version
from notif_assets.lake import SCHEMAS, Lake, until_committed

PACKAGED = "prices.csv"


def packaged_prices() -> pa.Table:
    """The list that comes with the project: WhatsApp at R$ 0,04, so that 25000 notifications cost R$ 1000,00."""
    return parse_price_list((files("notif_assets") / "samples" / PACKAGED).read_bytes(), PACKAGED)


def load_prices(lake: Lake, prices: pa.Table) -> str:
    """Makes `prices` the list of open days and gives its version. Loading the current list again writes nothing."""
    version = price_version(prices)

    def attempt() -> str:
        table = lake.table("prices")
        if current_version(lake) != version:
            rows = prices.append_column("price_version", pa.repeat(pa.scalar(version), prices.num_rows))
            # The newest list is in force, even if the clock went back since the previous one was loaded.
            before = lake.rows(table.scan())["loaded_at"].to_pylist()
            moment = max([datetime.now(UTC), *(loaded + timedelta.resolution for loaded in before)])
            now = pa.scalar(moment, pa.timestamp("us", "UTC"))
            table.append(rows.append_column("loaded_at", pa.repeat(now, prices.num_rows)), note={"version": version})
        return version

    return until_committed(attempt)


def ensure_prices(lake: Lake) -> str:
    """The version of the current list; loads the packaged one into a lake that has none yet."""
    return current_version(lake) or load_prices(lake, packaged_prices())


def prices_in_force(lake: Lake) -> tuple[str, pa.Table]:
    """The version and the prices of open days: the current list, or the packaged one before the first list."""
    version = current_version(lake)
    return (version, price_list(lake, version)) if version else (price_version(packaged_prices()), packaged_prices())


def current_version(lake: Lake) -> str | None:
    """The version of the list that was loaded last, None before the first."""
    rows = lake.select("current_prices", {"prices": lake.table("prices").scan()})
    return rows["price_version"][0].as_py() if rows.num_rows else None


def price_list(lake: Lake, version: str) -> pa.Table:
    """The prices of one version. Raises KeyError if it was never loaded."""
    rows = lake.select("price_list", {"prices": lake.table("prices").scan()}, price_version=version)
    if not rows.num_rows:
        raise KeyError(version)
    return rows.select(SCHEMAS["prices"].arrow.names)


def with_currency(lake: Lake, adjustments: pa.Table) -> pa.Table:
    """Adjustments with a column `currency`: that of the price list that each was computed with. Raises KeyError for a
    list that was never loaded."""
    known = currencies(lake) if adjustments.num_rows else {}
    found = [known[version] for version in adjustments["price_version"].to_pylist()]
    return adjustments.append_column("currency", pa.array(found, pa.string()))


def currencies(lake: Lake) -> dict[str, str]:
    """The currency of each list that was ever loaded."""
    lists = lake.select("price_currencies", {"prices": lake.table("prices").scan()})
    return dict(zip(lists["price_version"].to_pylist(), lists["currency"].to_pylist(), strict=True))
