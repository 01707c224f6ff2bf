"""The proof of a lake: its examples and every asset check, as one list of verdicts.

Belongs here: which findings make the proof, and their order. Doesn't: what each check looks at (the subjects,
defs/assets/), the files (maintenance/integrity.py), how verdicts are printed (cli/).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from notif_assets.billing.lines import example_bill_differences
from notif_assets.chatbot.sessions import example_flow_differences
from notif_assets.defs.assets.billing import BOUNDED
from notif_assets.instance.runs import Runs
from notif_assets.invoices.averages import example_account_differences
from notif_assets.lake import Lake
from notif_assets.notifications.audit import every_offset_once

_SHOWN = 5


@dataclass(frozen=True, order=True)
class Verdict:
    """What one check came to. `check` is ASSET.NAME; a check that is no error, only warns; `finding` is empty if it
    passed and had nothing to say."""

    check: str
    passed: bool
    is_error: bool
    finding: str


def prove(lake: Lake, runs: Runs, *, everything: bool) -> list[Verdict]:
    """Evaluates every check of the lake but that of its files; the verdicts by name.

    Checks whose work is bounded look at what is new, or at `everything`.
    """
    verdicts = list(_examples(lake))
    if everything:  # the check of that name looks at what is new
        offsets = every_offset_once(lake)
        more = [f"… and {len(offsets) - _SHOWN} more"] if len(offsets) > _SHOWN else []
        finding = "; ".join(offsets[:_SHOWN] + more)
        verdicts.append(Verdict("rejected_notifications.every_offset_ever_once", not offsets, True, finding))
    return sorted([*verdicts, *_asset_checks(runs, everything=everything)])


def _examples(lake: Lake) -> Iterable[Verdict]:
    """The deployed code computes the document's expected outputs."""
    for check, wrong in (
        ("daily_billing.published_bill_holds", example_bill_differences(lake)),
        ("invoice_window_averages.published_averages_hold", example_account_differences(lake)),
        ("chatbot_reports.published_chatbot_holds", example_flow_differences(lake)),
    ):
        yield Verdict(check, not wrong, True, ", ".join(map(str, wrong)))


def _asset_checks(runs: Runs, *, everything: bool) -> Iterable[Verdict]:
    """A run of all asset checks; one that could not be evaluated is a failure."""
    config = {f"{key.asset_key.to_user_string()}_{key.name}": {"everything": everything} for key in BOUNDED}
    run = runs.attempt("all_checks", config)
    for result in run.get_asset_check_evaluations():
        check = f"{result.asset_key.to_user_string()}.{result.check_name}"
        is_error = result.severity is dg.AssetCheckSeverity.ERROR
        yield Verdict(check, result.passed, is_error, result.description or "see the run")
    for check, reason in runs.skipped_checks(run).items():
        yield Verdict(check, False, True, reason)
