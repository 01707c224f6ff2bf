"""Who is told what fails: the addresses of a deployment, each told each thing once.

Belongs here: sending, and what each address was told. Doesn't: what fails, how it is worded (alerts.py); when somebody
looks (defs/sensors.py). Texts hold names, counts and offsets as the checks give them, never a message. No error names
an address: it is a secret.
"""

import json
import logging
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from pydantic import SecretStr

from notif_assets.errors import Unavailable
from notif_assets.instance.alerts import HOLDS_AGAIN, alert_lines
from notif_assets.settings import Settings

_SECONDS = 5.0
_LOG, _WEBHOOK, _URLS = "log", "NOTIF_WEBHOOK", "NOTIF_ALERT_URLS"
Send = Callable[[Sequence[str]], None]


class AlertNotSent(Unavailable):
    """An address did not take a message; the reason does not say which it is, for that is a secret."""


@dataclass(frozen=True)
class SendResult:
    """What came of telling: the lines for the log, why some address was not told, and what to remember."""

    lines: list[str]
    problems: list[str]
    memory: str


def send_alerts(settings: Settings, memory: str | None, failing: Mapping[str, str]) -> SendResult:
    """Tells every address what is news to it: each failure when it begins and when it ends.

    An address that does not take the news is told with the next call; the others are not told again.
    """
    reported = _remembered(memory)
    now = {_LOG: dict(failing)}
    problems = []
    for name, send_to in _addresses(settings).items():
        now[name] = reported.get(name, {})
        try:
            send_to(alert_lines(now[name], failing))
            now[name] = dict(failing)
        except AlertNotSent as problem:
            problems.append(str(problem))
    return SendResult(alert_lines(reported.get(_LOG, {}), failing), problems, json.dumps(now))


def _remembered(memory: str | None) -> dict[str, dict[str, str]]:
    """What each address was told; nothing if it can't be read. There was one memory for the log and the webhook once.

    >>> _remembered('{"job a": "x"}') == {"log": {"job a": "x"}, "NOTIF_WEBHOOK": {"job a": "x"}}
    True
    """
    try:
        reported = json.loads(memory or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(reported, dict):
        return {}
    if reported and all(isinstance(sentence, str) for sentence in reported.values()):
        return {_LOG: reported, _WEBHOOK: reported}
    return {name: failing for name, failing in reported.items() if isinstance(failing, dict)}


def _addresses(settings: Settings) -> Mapping[str, Send]:
    """How each address is told, by a name that tells no secret."""
    urls = settings.alert_urls.get_secret_value().split() if settings.alert_urls else []
    numbered = {f"{_URLS} {number}": partial(_send_by_apprise, number, url) for number, url in enumerate(urls, 1)}
    return ({_WEBHOOK: partial(send, settings.webhook)} if settings.webhook else {}) | numbered


# --- apprise ----------------------------------------------------------------------------------------------------------


def _send_by_apprise(number: int, url: str, lines: Sequence[str]) -> None:
    """Sends the lines as one message. Raises AlertNotSent."""
    if not lines:
        return
    import apprise  # half a second of a processor, which only who is told something pays

    logging.getLogger("apprise").disabled = True  # it may say where to, and what
    # A message that is redirected arrives without its text.
    asset = apprise.AppriseAsset(app_id="notif-assets", async_mode=False, http_redirects=False)
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        raise AlertNotSent(f"address {number} of {_URLS} is none that apprise knows")
    over = all(line.endswith(HOLDS_AGAIN) for line in lines)
    kind = apprise.NotifyType.SUCCESS if over else apprise.NotifyType.FAILURE
    try:
        taken = service.notify(title="notif-assets", body="\n".join(lines), notify_type=kind)
    except Exception as error:  # a service's fault must not keep the others from being told
        raise AlertNotSent(f"address {number} of {_URLS} can't be told: {type(error).__name__}") from None
    if not taken:
        raise AlertNotSent(f"address {number} of {_URLS} did not take the message")


# --- the webhook ------------------------------------------------------------------------------------------------------


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: the redirected request has no body, so the webhook did not receive the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def send(webhook: SecretStr | None, lines: Sequence[str]) -> None:
    """Posts `{"text": …}`, as Slack and Mattermost take it; nothing without a webhook. Raises AlertNotSent."""
    if webhook is None or not lines:
        return
    body = json.dumps({"text": "notif-assets\n" + "\n".join(lines)}).encode()
    try:
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked with the settings
            webhook.get_secret_value(), body, {"Content-Type": "application/json"}
        )
        _OPENER.open(request, timeout=_SECONDS).close()
    except HTTPError as answer:
        raise AlertNotSent(f"NOTIF_WEBHOOK answered {answer.code}") from None
    except (OSError, HTTPException, ValueError) as error:  # their texts may hold the address
        raise AlertNotSent(f"NOTIF_WEBHOOK can't be reached: {type(error).__name__}") from None
