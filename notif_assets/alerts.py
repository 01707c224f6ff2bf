"""What fails and what holds again, told once: to the log, and to a webhook if one is set.

Belongs here: which checks and jobs fail now according to Dagster, the difference to what was told, sending it.
Doesn't: when to look (sensors.py). Texts hold names, counts and offsets as the checks give them, never a message.
"""

import json
import urllib.request
from collections.abc import Iterable, Mapping
from http import HTTPStatus

import dagster as dg
from pydantic import SecretStr

_SECONDS = 5.0
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def failing_checks(instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]) -> dict[str, str]:
    """The checks whose newest evaluation did not pass, and what it found; warnings too."""
    failing = {}
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    for key, record in newest.items():
        event = record.event.dagster_event if record.event else None
        if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue  # planned, or its run failed before it came to the check
        found = event.asset_check_evaluation_data
        if not found.passed:
            name = f"check {key.name} of {key.asset_key.to_user_string()}"
            failing[name] = f"{found.description or 'see its page'} (run {record.run_id[:8]})"
    return failing


def failing_jobs(instance: dg.DagsterInstance, jobs: Iterable[str]) -> dict[str, str]:
    """The jobs whose newest ended run failed, and why."""
    failing = {}
    for job in jobs:
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=_ENDED), limit=1):
            if run.status == dg.DagsterRunStatus.FAILURE:
                failing[f"job {job}"] = f"{reason_of_failure(instance, run.run_id)} (run {run.run_id[:8]})"
    return failing


def reason_of_failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, in a sentence: its failing checks, else what the step said."""
    checks = [
        f"check {data.check_name} of {data.asset_key.to_user_string()} failed"
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        if entry.dagster_event
        and not (data := entry.dagster_event.asset_check_evaluation_data).passed
        and data.severity == dg.AssetCheckSeverity.ERROR
    ]
    if checks:
        return ", ".join(checks)
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        if entry.dagster_event:
            failure = entry.dagster_event.step_failure_data
            if failure.user_failure_data and failure.user_failure_data.description:
                return failure.user_failure_data.description
            return f"step {entry.dagster_event.step_key} failed"
    return "its process ended without a word"


def news(told: Mapping[str, str], failing: Mapping[str, str]) -> list[str]:
    """What to tell of `failing` to somebody who was told `told`: each failure when it begins and when it ends.

    >>> news({"job a": "x"}, {"job b": "y"})
    ['job b: y', 'job a holds again']
    """
    begun = [f"{name}: {sentence}" for name, sentence in sorted(failing.items()) if name not in told]
    return begun + [f"{name} holds again" for name in sorted(told) if name not in failing]


class NotTold(Exception):  # noqa: N818 - the webhook's answer
    """The webhook did not take the message; the reason names no address, for that is a secret."""


def send(webhook: SecretStr | None, lines: list[str]) -> None:
    """Posts `{"text": …}`, as Slack, Teams and Mattermost take it; nothing without a webhook. Raises NotTold."""
    if webhook is None or not lines:
        return
    body = json.dumps({"text": "notif-assets\n" + "\n".join(lines)}).encode()
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked with the settings
        webhook.get_secret_value(), body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            status = answer.status
    except OSError as error:
        raise NotTold(f"NOTIF_WEBHOOK can't be reached: {type(error).__name__}") from None
    if status >= HTTPStatus.BAD_REQUEST:
        raise NotTold(f"NOTIF_WEBHOOK answered {status}")
