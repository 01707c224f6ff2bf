"""Chatbot answers by hour, and each session's last answers by day.

Belongs here: the assets, the checks that guard them, what the UI shows of them: counts, never an answer. Doesn't:
reading files and replacing rows (chatbot/sessions.py), which answer is the last (chatbot/sql/chatbot_reports.sql).
"""

import math
from collections.abc import Iterator
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import dagster as dg
import pyarrow.compute as pc
from pydantic import Field

from notif_assets.chatbot.sessions import (
    days_that_differ,
    example_flow_differences,
    import_hours,
    replace_day,
    source_file_of,
)
from notif_assets.defs.assets.inbox import answer_files_by_key, difference_result, inbox, report_set_aside
from notif_assets.defs.assets.specs import described
from notif_assets.defs.partitions import answer_days, answer_hours
from notif_assets.inbox.listing import InboxFile
from notif_assets.inbox.rows import FileRefused
from notif_assets.inbox.source_files import record_refusal
from notif_assets.lake import Lake
from notif_assets.settings import Settings

# The check by plain Python reads every answer of a day; its time must not grow with the history.
_DAYS_TO_CHECK = 31

_HourFiles: TypeAlias = dict[int, tuple[str, Path]]
"""Of some hours of one day: the partition key and the file."""


class AnswerFiles(dg.Config):
    """Where the files of answers are."""

    files: dict[str, str] = Field(
        default={},
        description="The absolute path of an hour's file, by partition key; others are taken from the inbox.",
    )


@dg.asset(
    **described("chatbot_answers"),
    deps=[inbox],
    partitions_def=answer_hours,
    backfill_policy=dg.BackfillPolicy.single_run(),
    code_version="2",
    pool="chatbot",
)
def chatbot_answers(
    context: dg.AssetExecutionContext,
    config: AnswerFiles,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    hours = {answer_hours.time_window_for_partition_key(key).start: key for key in context.partition_keys}
    inbox_files = answer_files_by_key(settings, math.inf)[0] if {*hours.values()} - config.files.keys() else {}
    paths = {
        hour: Path(config.files[key]) if key in config.files else _path(settings, inbox_files.get(key), hour)
        for hour, key in hours.items()
    }
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing and (config.files or len(missing) == len(paths)):
        raise dg.Failure(
            f"Nothing was imported. {len(missing)} missing, the first is {missing[0]}", allow_retries=False
        )
    refused: list[str] = []
    imported: list[str] = []
    for day, of_day in groupby(sorted(hours), key=datetime.date):
        files = {hour.hour: (hours[hour], paths[hour]) for hour in of_day}
        for part, refusal in _import_day(context, lake, settings, day, files, by_name=bool(config.files)):
            if refusal is None:
                imported += [key for key, _ in part.values()]
                continue
            whole = part == files
            outcome = f"Nothing of {day} was" if whole else f"Of {day}, the hour {min(part):02} was not"
            refused.append(f"{outcome} imported. {refusal}")
            if not config.files:
                record_refusal(lake, source_file_of(day, min(part)), refusal)
    if refused:
        for key in imported:
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=key))
        raise dg.Failure(" ".join(refused), allow_retries=False)
    return dg.MaterializeResult()


def _path(settings: Settings, file: InboxFile | None, hour: datetime) -> Path:
    """The hour's file in the inbox, or the name that it should have."""
    return file.path if file else settings.inbox / "chatbot" / source_file_of(hour.date(), hour.hour)


def _import_day(
    context: dg.AssetExecutionContext, lake: Lake, settings: Settings, day: date, files: _HourFiles, *, by_name: bool
) -> list[tuple[_HourFiles, FileRefused | None]]:
    """Imports a day's files, and gives what became of them: one part, or one for each hour.

    A refused file keeps the other files of its day out only where a person named them together: of files that came by
    themselves, other hours don't wait.
    """
    refusal = _import_part(context, lake, settings, day, files)
    if refusal is None or by_name or len(files) == 1:
        return [(files, refusal)]
    parts: list[_HourFiles] = [{hour: file} for hour, file in files.items()]
    return [(part, _import_part(context, lake, settings, day, part)) for part in parts]


def _import_part(
    context: dg.AssetExecutionContext, lake: Lake, settings: Settings, day: date, files: _HourFiles
) -> FileRefused | None:
    """Imports these files in one commit; gives why nothing was imported, or None."""
    paths = {hour: path for hour, (_, path) in files.items()}
    try:
        imported = import_hours(lake, day, paths, settings.inbox / "chatbot", settings.max_file_bytes)
    except FileRefused as refusal:
        return refusal
    report_set_aside(context, lake, imported.rejected)
    for hour, (key, _) in files.items():
        answers = pc.sum(pc.equal(imported.rows["hour"], hour)).as_py() or 0
        rejected = pc.sum(pc.equal(imported.rejected["source_file"], source_file_of(day, hour))).as_py() or 0
        context.add_asset_metadata(
            {"dagster/partition_row_count": answers, "rejected_rows": rejected}, partition_key=key
        )
    return None


def example_flows_gate(lake: Lake) -> dg.AssetCheckResult:
    """The deployed code still gives the document's table of each flow for the document's files."""
    wrong = example_flow_differences(lake)
    return dg.AssetCheckResult(
        check_name="published_chatbot_holds", passed=not wrong, metadata={"flows_that_differ": wrong}
    )


@dg.asset(
    **described("chatbot_reports"),
    deps=[chatbot_answers],
    partitions_def=answer_days,
    backfill_policy=dg.BackfillPolicy.single_run(),
    code_version="2",
    pool="chatbot",
    check_specs=[
        dg.AssetCheckSpec(
            "published_chatbot_holds",
            asset="chatbot_reports",
            blocking=True,
            description="The deployed code gives the document's table of each flow for the document's files.",
        )
    ],
)
def chatbot_reports(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    gate = example_flows_gate(lake)
    if not gate.passed:  # before the commit: a check that runs after it could not take the rows back
        yield gate
        raise dg.Failure("The document's tables do not hold, nothing was written.", allow_retries=False)

    for key in context.partition_keys:
        rows = replace_day(lake, date.fromisoformat(key))
        context.add_asset_metadata(
            {
                "dagster/partition_row_count": rows.num_rows,
                "customers": pc.count_distinct(rows["customer"]).as_py(),
                "flows": pc.count_distinct(rows["flow"]).as_py(),
            },
            partition_key=key,
        )
    yield dg.MaterializeResult(check_results=[gate])


@dg.asset_check(
    asset=chatbot_reports,
    description=f"The {_DAYS_TO_CHECK} days written last equal what plain Python makes of their answers.",
)
def reports_equal_a_plain_calculation(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    imported = lake.table("chatbot_answers")
    return difference_result(days_that_differ(lake, _DAYS_TO_CHECK), imported, "chatbot_reports")
