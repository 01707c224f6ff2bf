"""compose.yaml and the Dockerfile, as far as they can be judged where no engine runs containers.

`docker compose config` judges the form where that client is there; what the file names is looked for everywhere.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from notif_assets.settings import Settings
from notif_assets_tests.cli.deployment import ROOT
from notif_assets_tests.deploy.test_units import CODE, DAEMON, PANEL, WEBSERVER, directives
from notif_assets_tests.deploy.tools import DEPLOY

COMPOSE = DEPLOY / "compose.yaml"
PASSWORDS = {"DAGSTER_POSTGRES_PASSWORD": "one", "GRAFANA_PASSWORD": "another"}
OURS = {"code": CODE, "daemon": DAEMON, "webserver": WEBSERVER, "panel": PANEL}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def _client() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("needs the client docker compose")


def test_the_client_takes_it_and_asks_for_the_passwords() -> None:
    command = [*_client(), "-f", str(COMPOSE), "config"]
    environment = {name: value for name, value in os.environ.items() if name not in PASSWORDS}
    done = subprocess.run(command, env=environment | PASSWORDS, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= {*OURS, "kafka", "postgres", "prometheus", "grafana"}
    without = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert without.returncode != 0
    assert "a password for" in without.stderr


def test_every_service_is_named_and_every_file_is_there(services: dict[str, dict[str, Any]]) -> None:
    whole = yaml.safe_load(COMPOSE.read_text())
    assert set(services) == {*OURS, "token", "kafka", "postgres", "prometheus", "grafana"}
    for name, service in services.items():
        assert "image" in service, name
        assert set(service.get("depends_on", {})) <= set(services), name
        for other, needs in service.get("depends_on", {}).items():
            assert needs["condition"] != "service_healthy" or "healthcheck" in services[other], name
        for source in (mount.partition(":")[0] for mount in service["volumes"]):
            assert source in whole["volumes"] or (source.startswith("./") and (DEPLOY / source).exists()), source
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "what has no login is for this machine only"


def test_each_process_is_started_and_ended_as_its_unit_does_it(services: dict[str, dict[str, Any]]) -> None:
    for name, unit in OURS.items():
        said = directives(unit)
        command = re.sub(r"/opt/notif-assets/(?:.venv/bin/|deploy/production.yaml)", "", said["ExecStart"]).split()
        there = services[name]["command"].replace("/etc/notif-assets/workspace.yaml", "").split()
        assert [word for word in there if word not in ("0.0.0.0", "--host")] == [
            word for word in command if word not in ("127.0.0.1", "--host")
        ]
        assert services[name]["stop_signal"] == said["KillSignal"]
        assert services[name]["stop_grace_period"] == f"{said['TimeoutStopSec']}s"


def test_every_variable_is_one_that_is_read(services: dict[str, dict[str, Any]]) -> None:
    known = Settings.variables() | {"DAGSTER_HOME", "DAGSTER_STORE", "DAGSTER_POSTGRES_URL"}
    for name in OURS:
        assert set(services[name]["environment"]) <= known
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert set(re.findall(r"\b((?:NOTIF|DAGSTER)_\w+)=", dockerfile)) <= known


@pytest.mark.parametrize(
    ("copy", "original", "differences"),
    [
        ("compose/workspace.yaml", "production.yaml", {"host: code": "host: 127.0.0.1"}),
        (
            "compose/prometheus.yml",
            "prometheus/prometheus.yml",
            {"/token/notif-assets.token": "/etc/prometheus/notif-assets.token", "panel:8000": "127.0.0.1:8000"},
        ),
    ],
)
def test_what_containers_need_otherwise_is_only_where_others_are(
    copy: str, original: str, differences: dict[str, str]
) -> None:
    text = (DEPLOY / copy).read_text()
    for there, here in differences.items():
        assert there in text
        text = text.replace(there, here)
    assert yaml.safe_load(text) == yaml.safe_load((DEPLOY / original).read_text())


def test_the_image_has_what_the_commands_need() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "RUN make install" in text
    assert "umask 027" in text
    assert "\nUSER notif\n" in text
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {".venv", ".env", "data"} <= set(left_out), "what a working copy has besides is none of the image's"
    assert not any((ROOT / name).is_relative_to(ROOT / "notif_assets") for name in left_out if "*" not in name)


def test_no_setting_of_grafana_names_a_file_that_is_not_there(services: dict[str, dict[str, Any]]) -> None:
    (provider,) = yaml.safe_load((DEPLOY / "compose" / "grafana-dashboards.yml").read_text())["providers"]
    mounted = {mount.split(":")[1]: mount.split(":")[0] for mount in services["grafana"]["volumes"]}
    assert [*(DEPLOY / Path(mounted[provider["options"]["path"]])).glob("*.json")]
    (source,) = yaml.safe_load((DEPLOY / "compose" / "grafana-datasources.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
