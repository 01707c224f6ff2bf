"""Two commands at once, as processes, on one lake: both end well, and every table is exact.

Belongs here: races between real processes. Doesn't: lost races of single commits (lake/), kills.
"""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

from notif_assets_tests.cli.deployment import ended, ok
from notif_assets_tests.conftest import Deploy
from notif_assets_tests.faults.truth import Truth, assert_exact, assert_nothing_wrong_so_far

_SMALL = {"NOTIF_BATCH_MESSAGES": "60", "NOTIF_RUN_MESSAGES": "240"}


def test_two_ingests_at_once(deploy: Deploy) -> None:
    deployment, truth = deploy(4, untouched=True, **_SMALL), Truth()
    for time in range(2):  # the first where neither lake nor Dagster's storage exists
        truth.send(deployment, time, 250, datetime.now(UTC) - timedelta(minutes=5))
        both = [deployment.start("ingest", "--until-caught-up") for _ in range(2)]
        for process in both:
            ok(ended(process))
        assert_nothing_wrong_so_far(deployment)
        assert len(deployment.rows("raw_notifications")) == truth.produced
    assert_exact(deployment, truth)


def test_ingest_beside_upkeep(deploy: Deploy) -> None:
    deployment, truth = deploy(4, **_SMALL), Truth()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    truth.send(deployment, 1, 300, yesterday)
    ok(deployment.run("ingest", "--until-caught-up"))
    before = deployment.commits("notifications")
    truth.send(deployment, 2, 500, yesterday)
    ingest = deployment.start("ingest", "--until-caught-up")
    rounds = 0
    while rounds == 0 or ingest.poll() is None:
        ok(deployment.run("maintain"))
        rounds += 1
    ok(ended(ingest))
    assert_exact(deployment, truth)
    print(f"{rounds} times upkeep beside {deployment.commits('notifications') - before} commits to notifications")
    ok(deployment.run("maintain"))
    assert_exact(deployment, truth)


def test_two_close_days_at_once(deploy: Deploy) -> None:
    deployment, truth = deploy(4), Truth()
    noon = (datetime.now(UTC) - timedelta(days=3)).replace(hour=12, minute=0)
    truth.send(deployment, 3, 900, noon)
    ok(deployment.run("ingest", "--until-caught-up"))
    ok(deployment.run("import-prices", files("notif_assets") / "samples" / "prices-demo.csv"))
    both = [deployment.start("close-day", noon.date()) for _ in range(2)]
    said = [ok(ended(process)).text for process in both]
    assert said[0] == said[1]
    (closed,) = deployment.rows("billing_days")
    bills = truth.bills(noon.date())
    assert (closed["status"], closed["lines"], closed["notifications"]) == ("final", len(bills), bills.total())
    lines = deployment.rows("daily_billing")
    assert sorted((row["customer_id"], row["channel"], row["notifications"], row["status"]) for row in lines) == sorted(
        (*pair, count, "final") for pair, count in bills.items()
    )
    assert deployment.rows("billing_adjustments") == []
    assert_exact(deployment, truth)
