"""Who is told what fails: each address each thing once, through apprise and the webhook, at servers on loopback."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from notif_assets.instance.messengers import SendResult, send_alerts
from notif_assets.settings import Settings

SECRET = "s3cr3t"
ONE, OTHER = {"job a": "it broke"}, {"job a": "it broke", "check b of c": "7 are not"}


class Service(ThreadingHTTPServer):
    """A chat service, as far as it takes messages; by TLS where a certificate is given."""

    def __init__(self, certificate: Path | None = None) -> None:
        service = self
        self.heard: list[dict[str, Any]] = []
        self.status = 200

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if service.status == 200:
                    service.heard.append(json.loads(body))
                self.send_response(service.status)
                self.send_header("Location", f"http://127.0.0.1:{service.server_port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:  # as who follows a redirect asks
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate / "one.pem", certificate / "one.key")
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def url(self, scheme: str, rest: str = "") -> str:
        """Its address."""
        return f"{scheme}://127.0.0.1:{self.server_port}/{SECRET}{rest}"


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Service]:
    """A service until the end of the block."""
    with Service(certificate) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def other() -> Iterator[Service]:
    with serving() as service:
        yield service


def _settings(*urls: str, webhook: str | None = None) -> Settings:
    return Settings(alert_urls=SecretStr(" ".join(urls)) if urls else None, webhook=webhook and SecretStr(webhook))


def texts(service: Service) -> list[str]:
    """What a service was told: through apprise the message, through the webhook the text without its title."""
    return [one["message"] if "message" in one else one["text"].partition("\n")[2] for one in service.heard]


def test_each_failure_is_told_once_when_it_begins_and_once_when_it_ends(service: Service) -> None:
    settings = _settings(service.url("json"))
    memory = None
    for failing in ({}, ONE, ONE, OTHER, OTHER, {"check b of c": "8 are not"}, {}, {}):
        memory = send_alerts(settings, memory, failing).memory
    assert texts(service) == [
        "job a: it broke",
        "check b of c: 7 are not",
        "job a holds again",
        "check b of c holds again",
    ]
    assert [one["type"] for one in service.heard] == ["failure", "failure", "success", "success"]
    assert {one["title"] for one in service.heard} == {"notif-assets"}


def test_who_is_out_of_reach_is_told_later_and_nobody_else_twice(service: Service, other: Service) -> None:
    settings = _settings(service.url("json"), other.url("json"), webhook=other.url("http"))
    other.status = 500
    told = send_alerts(settings, None, ONE)
    assert sorted(told.problems) == [
        "NOTIF_WEBHOOK answered 500",
        "address 2 of NOTIF_ALERT_URLS did not take the message",
    ]
    told = send_alerts(settings, told.memory, ONE)
    assert (texts(service), texts(other), told.lines) == (["job a: it broke"], [], [])
    other.status = 200
    told = send_alerts(settings, told.memory, OTHER)
    assert told.problems == []
    assert texts(service) == ["job a: it broke", "check b of c: 7 are not"]
    assert texts(other) == ["check b of c: 7 are not\njob a: it broke"] * 2


def test_what_was_told_before_there_were_several_addresses_is_not_told_again(service: Service, other: Service) -> None:
    settings = _settings(other.url("json"), webhook=service.url("http"))
    told = send_alerts(settings, json.dumps(ONE), ONE)
    assert (told.lines, texts(service), texts(other)) == ([], [], ["job a: it broke"])
    assert send_alerts(settings, told.memory, {}).lines == ["job a holds again"]
    assert texts(service) == ["job a holds again"]


@pytest.mark.parametrize("memory", ["", "no json", "[]", "3", '{"log": 3, "NOTIF_WEBHOOK": {"job a": "x"}}'])
def test_a_memory_that_says_nothing_is_none(memory: str) -> None:
    assert send_alerts(_settings(), memory, ONE).lines == ["job a: it broke"]


def test_teams_is_sent_an_adaptive_card(tmp_path: Path) -> None:
    """Webhooks of Teams' Workflows take nothing else."""
    made = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=teams -keyout one.key -out one.pem"
    subprocess.run(made.split(), cwd=tmp_path, check=True, capture_output=True)
    with serving(tmp_path) as teams:
        told = send_alerts(_settings(teams.url("workflows", "/signature?verify=no")), None, ONE)
    assert told.problems == []
    ((card,),) = [one["attachments"] for one in teams.heard]
    assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert card["content"]["type"] == "AdaptiveCard"
    assert "job a: it broke" in json.dumps(card)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"nothing://{SECRET}", "is none that apprise knows"),
        (f"slack://{SECRET}", "is none that apprise knows"),
        (f"json://127.0.0.1:1/{SECRET}", "did not take the message"),
        (f"json://{SECRET}.invalid/", "did not take the message"),
        (f"mailto://user:{SECRET}@127.0.0.1:1?from=a@example.com&to=b@example.com", "did not take the message"),
    ],
)
def test_an_address_that_leads_nowhere_is_kept_secret(
    url: str, problem: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    told: SendResult = send_alerts(_settings(url), None, ONE)
    assert told.problems == [f"address 1 of NOTIF_ALERT_URLS {problem}"]
    assert send_alerts(_settings(), told.memory, ONE).lines == []
    printed = capfd.readouterr()
    assert SECRET not in f"{told}{caplog.text}{printed.out}{printed.err}"


def test_a_message_that_is_redirected_did_not_arrive(service: Service) -> None:
    service.status = 302
    assert send_alerts(_settings(service.url("json")), None, ONE).problems != []


def test_a_setting_that_is_no_address_is_refused_and_kept_secret() -> None:
    with pytest.raises(ValidationError) as caught:
        _settings("slack://fine", SECRET)
    assert "want addresses of apprise" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(_settings(f"slack://{SECRET}"))


def test_without_news_nobody_is_asked() -> None:
    assert send_alerts(_settings("json://127.0.0.1:1/"), None, {}).problems == []
