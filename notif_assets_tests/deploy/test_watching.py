"""What watches a deployment: Prometheus takes the rules, each alert is caused once and has its page of the runbook.

That every metric is one that the panel serves is tested where a panel runs (panel/test_metrics.py).
"""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.deploy.tools import DEPLOY, needed, told

RULES, CAUSES = DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "prometheus" / "alerts_test.yml"
DASHBOARD = DEPLOY / "grafana" / "notif-assets.json"


@pytest.fixture(scope="module")
def promtool() -> str:
    return needed("promtool", "prometheus")


def alerts() -> list[dict[str, Any]]:
    """The alerts of all groups."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_prometheus_takes_its_configuration(promtool: str, tmp_path: Path) -> None:
    text = (RULES.parent / "prometheus.yml").read_text()
    (tmp_path / "token").touch()
    (tmp_path / "alerts.yml").write_text(RULES.read_text())
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/notif-assets.token", "token"))
    assert f"{len(alerts())} rules found" in told(promtool, "check", "config", tmp_path / "prometheus.yml")


def test_each_alert_is_raised_by_its_cause_and_none_while_all_is_well(promtool: str) -> None:
    told(promtool, "test", "rules", CAUSES)
    cases = [test["alert_rule_test"] for test in yaml.safe_load(CAUSES.read_text())["tests"]]
    names = {alert["alert"] for alert in alerts()}
    assert {one["alertname"] for case in cases for one in case if one.get("exp_alerts")} == names
    assert {one["alertname"] for one in cases[-1] if not one.get("exp_alerts")} == names


def test_an_alert_that_is_not_raised_is_noticed(promtool: str, tmp_path: Path) -> None:
    """So that the test before this one says something."""
    (tmp_path / "alerts.yml").write_text(
        RULES.read_text().replace("notif_lake_readable == 0", "notif_lake_readable > 1")
    )
    (tmp_path / "causes.yml").write_text(CAUSES.read_text())
    assert "NotifLakeUnreadable" in told(promtool, "test", "rules", tmp_path / "causes.yml", code=1)


def test_each_alert_has_its_section_in_the_runbook() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert list(sections) == [alert["alert"] for alert in alerts()]
    assert [name for name, text in sections.items() if "**Means.**" not in text or "**Do.**" not in text] == []


def test_each_alert_says_what_is_wrong_and_whom_it_wakes() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket"), alert
        assert alert["annotations"]["summary"].endswith("."), alert


def test_prometheus_can_answer_every_question_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    rules = [
        {"record": f"asked:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(asked)
    ]
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    assert f"{len(asked)} rules found" in told(promtool, "check", "rules", tmp_path / "asked.yml")


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard."""
    shown: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return shown


def test_no_two_panels_of_the_dashboard_lie_on_each_other() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels()) > 15
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())
