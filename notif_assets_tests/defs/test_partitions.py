"""From when to when the partitioned assets are cut.

Belongs here: which days a deployment bills, and what happens if it is told to begin later. Doesn't: ranges of
partitions in tags (instance/), what a day's bill holds (billing/).
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from pydantic import ValidationError

from notif_assets.core.days import FIRST_DAY
from notif_assets.definitions import build_definitions
from notif_assets.defs.partitions import billed_days
from notif_assets.instance.run_tags import range_tags
from notif_assets.instance.runs import _reason
from notif_assets.notifications.rules import limits
from notif_assets.settings import Settings
from notif_assets_tests.conftest import MakeDaemon
from notif_assets_tests.streams import sent

NOON = datetime(2020, 2, 5, 12, tzinfo=UTC)
BILLS = {"daily_billing", "billing_days", "billing_adjustments"}
ZONES = ["UTC", "America/Sao_Paulo", "America/Santiago", "Asia/Beirut", "Pacific/Apia", "Pacific/Kiritimati"]


def cut_of(settings: Settings) -> dict[str, tuple[str | None, str | None]]:
    specs = build_definitions(settings).resolve_all_asset_specs()
    return {
        spec.key.to_user_string(): (spec.partitions_def.get_first_partition_key(), str(type(spec.partitions_def)))
        for spec in specs
        if spec.partitions_def
    }


@pytest.mark.parametrize("zone", ZONES)
def test_bills_have_every_day_from_the_first_to_the_day_that_goes_on(zone: str) -> None:
    """Also where midnight is skipped, or comes twice, or a whole day is missing."""
    settings = Settings(timezone=zone, first_day=date(2015, 9, 1))
    before, keys, after = (
        datetime.now(ZoneInfo(zone)).date(),
        billed_days(settings).get_partition_keys(),
        datetime.now(ZoneInfo(zone)).date(),
    )
    days = [date.fromisoformat(key) for key in keys]
    assert days == [date(2015, 9, 1) + timedelta(days=n) for n in range(len(days))]
    assert before <= days[-1] <= after


def test_only_bills_begin_with_the_first_day_and_nothing_changes_without_the_setting() -> None:
    usual, later = cut_of(Settings()), cut_of(Settings(first_day=date(2024, 5, 1)))
    assert {name: first for name, (first, _) in later.items() if name in BILLS} == dict.fromkeys(BILLS, "2024-05-01")
    assert {name: first for name, (first, _) in usual.items() if name in BILLS} == dict.fromkeys(BILLS, str(FIRST_DAY))
    assert {name: cut for name, cut in usual.items() if name not in BILLS} == {
        name: cut for name, cut in later.items() if name not in BILLS
    }


def test_no_deployment_begins_before_the_first_day_of_all() -> None:
    with pytest.raises(ValidationError, match="2015"):
        Settings(first_day=date(2014, 12, 31))


def test_what_no_bill_would_take_is_not_accepted() -> None:
    settings = Settings(first_day=date(2024, 5, 1), timezone="America/Sao_Paulo")
    assert limits(settings).earliest == datetime(2024, 5, 1, 3, tzinfo=UTC)


def test_the_first_day_moves_back_but_never_past_a_closed_day(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(grace=timedelta(0))
    daemon.topic.produce(sent(NOON - timedelta(days=1)), sent(NOON))
    daemon.ingest()
    daemon.close("2020-02-04")
    sentence = "2020-02-04 is closed, and NOTIF_FIRST_DAY says 2020-02-05: set it to 2020-02-04 or an earlier day"
    for first, refused in ((date(2020, 2, 5), True), (date(2020, 2, 4), False), (date(2016, 1, 1), False)):
        settings = daemon.settings.model_copy(update={"first_day": first})
        daemon.definitions = build_definitions(settings, kafka=lambda: daemon.topic)
        daemon.repository = daemon.definitions.get_repository_def()
        _, skipped = daemon.scheduled("bills")
        late = daemon.tick("late_messages").skip_message
        result = daemon.bill("2020-02-05")
        if refused:
            assert skipped == late == _reason(result) == sentence
        else:
            assert result.success, _reason(result)
            assert skipped is None


def test_a_run_for_a_day_before_the_first_writes_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(first_day=date(2020, 2, 5))
    daemon.topic.produce(sent(NOON))
    daemon.ingest()
    whole = {"dagster/partition": "2020-02-03"}, range_tags(dg.PartitionKeyRange("2020-02-03", "2020-02-05"))
    for tags in whole:
        result = daemon.run("daily_billing_job", tags=tags)
        assert _reason(result) == "2020-02-03 can't be billed: days go from 2020-02-05 (NOTIF_FIRST_DAY) to today"
    assert daemon.lake.table("billing_days").version == 0
