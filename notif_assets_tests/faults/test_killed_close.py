"""`close-day` is killed at random moments of its work and run again: the books are those of an undisturbed run.

Belongs here: kill -9 of real `close-day` processes over several days, before and after late messages. Doesn't: what a
bill is (billing/), crashes injected between two commits.
"""

import json
import random
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any

import pytest

from notif_assets.sandbox.traffic import Message
from notif_assets_tests.cli.deployment import Deployment, ok
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.kills import a_seed, killed, unfinished_runs
from notif_assets_tests.faults.truth import Truth, assert_exact, parsed, price, traffic

_BOOKS = ("daily_billing", "billing_days", "billing_adjustments")
_MOVED = ("ingest_batches", "raw_notifications", "rejected_notifications", "notifications", "minute_aggregates")
_TABLES = (*_MOVED, "customer_panel", *_BOOKS)
_DAYS = 5
_Pair = tuple[date, int, str]


@pytest.mark.timeout(0)  # every process has its own deadline; a soak takes as long as it takes
def test_killed_at_random_moments_and_run_again_the_books_are_exact(
    deploy: Deploy, request: pytest.FixtureRequest
) -> None:
    rounds = (request.config.getoption("--soak") or 4) // 2
    seed = a_seed()
    chance = random.Random(seed)
    deployment, truth, books = deploy(4), Truth(), _Books()
    first = (datetime.now(UTC) - timedelta(days=10)).date()
    days = [first + timedelta(days=n) for n in range(_DAYS)]
    command = ("close-day", days[0], "--to", days[-1])
    ok(deployment.run("import-prices", files("notif_assets") / "samples" / "prices-demo.csv"))

    kills = waves = 0
    landed: Counter[str] = Counter()
    while kills < rounds:
        _send(deployment, truth, seed + waves, days, late=waves > 0)
        ok(deployment.run("ingest", "--until-caught-up"))
        commits = 3 if waves else 12  # of 5 for late messages, of about 40 that close the days
        while kills < rounds and killed(
            deployment, _TABLES, chance.randint(1, commits), chance.uniform(0, 0.2), *command
        ):
            kills += 1
            landed[_where(deployment, days)] += 1
        ok(deployment.run(*command))
        waves += 1
        books.take(truth, days)
        assert books.shown() == _Books.of(deployment, days).shown()
        assert waves < 10 + 2 * rounds, "the processes end before they are killed"
    assert unfinished_runs(deployment) == 0  # the next command ends those of the dead, and waits for none
    print(f"{kills} kills in {waves} waves of messages; they landed:")
    for where, times in landed.most_common():
        print(f"  {times:3d} × {where}")

    before = [sorted(map(repr, deployment.rows(name))) for name in _BOOKS]
    ok(deployment.run(*command))
    assert [sorted(map(repr, deployment.rows(name))) for name in _BOOKS] == before
    assert_exact(deployment, truth)


def _send(deployment: Deployment, truth: Truth, seed: int, days: list[date], *, late: bool) -> None:
    """Messages of every day; the first time also some again an hour later by their event, so that only the closing
    finds the duplicates and has rows to move."""
    for n, day in enumerate(days):
        start = datetime.combine(day, time(9), UTC)
        sent, tally = traffic(seed * _DAYS + n, 60 if late else 250, start, rate=0.01)
        truth.note(sent)
        truth.count(tally)
        deployment.send(sent)
        if not late:
            again = [_an_hour_later(message) for message in sent[:20] if parsed(message.value)]
            truth.note(again)
            truth.tally.produced += len(again)
            truth.tally.duplicates += len(again)
            deployment.send(again)


def _an_hour_later(message: Message) -> Message:
    document = json.loads(message.value or b"")
    event = datetime.fromisoformat(document["event_datetime"]) + timedelta(hours=1)
    value = json.dumps({**document, "event_datetime": event.isoformat()}, ensure_ascii=False).encode()
    return message._replace(value=value)


def _where(deployment: Deployment, days: list[date]) -> str:
    """Where a kill left the books."""
    closed = {row["billing_date"] for row in deployment.rows("billing_days")}
    marks = {name: deployment.table(name)[0] for name in _MOVED}
    behind = [name for name in _MOVED[1:] if marks[name] < marks["ingest_batches"]]
    if behind:
        return f"{len(closed)} days closed, a dedup batch not yet in {', '.join(behind)}"
    final = {row["billing_date"] for row in deployment.rows("daily_billing")}
    if final - closed:
        return f"{len(closed)} days closed, final lines of a day that is not"
    adjusted = {row["billing_date"] for row in deployment.rows("billing_adjustments")}
    return f"{len(closed)} days closed, {len(adjusted)} ever adjusted"


class _Books:
    """Lines and adjustments of closed days, by plain Python: what is due for a day less what was billed for it."""

    def __init__(self) -> None:
        self.lines: dict[_Pair, tuple[int, Decimal]] = {}
        self.adjustments: Counter[tuple[_Pair, int, Decimal, str]] = Counter()
        self.closed: dict[date, tuple[int, int, Decimal]] = {}
        self._billed: dict[_Pair, tuple[int, Decimal]] = {}

    def take(self, truth: Truth, days: list[date]) -> None:
        """Closes the days, or corrects them, for all that was sent by now."""
        for day in days:
            due = {(day, *pair): (n, price(n, pair[1])) for pair, n in truth.bills(day).items()}
            if day not in self.closed:
                self.lines |= due
                amounts = [amount for _, amount in due.values()]
                self.closed[day] = (len(due), sum(n for n, _ in due.values()), sum(amounts, Decimal(0)))
            else:
                for pair, (count, amount) in due.items():
                    before = self._billed.get(pair, (0, Decimal(0)))
                    if (count, amount) != before:
                        self.adjustments[pair, count - before[0], amount - before[1], "late"] += 1
            self._billed |= due

    @classmethod
    def of(cls, deployment: Deployment, days: list[date]) -> "_Books":
        """As they are in the lake."""
        books = cls()
        lines = [row for row in deployment.rows("daily_billing") if row["billing_date"] in days]
        assert {row["status"] for row in lines} == {"final"}
        books.lines = {_pair(row): (row["notifications"], row["amount"]) for row in lines}
        assert len(books.lines) == len(lines)
        closed = deployment.rows("billing_days")
        books.closed = {row["billing_date"]: (row["lines"], row["notifications"], row["amount"]) for row in closed}
        assert len(books.closed) == len(closed)
        adjustments = deployment.rows("billing_adjustments")
        assert len({row["adjustment_id"] for row in adjustments}) == len(adjustments)
        books.adjustments.update(
            (_pair(row), row["notifications_delta"], row["amount_delta"], row["reason"]) for row in adjustments
        )
        return books

    def shown(self) -> tuple[object, ...]:
        """For comparing."""
        return self.closed, self.lines, self.adjustments


def _pair(row: dict[str, Any]) -> _Pair:
    return row["billing_date"], row["customer_id"], row["channel"]
