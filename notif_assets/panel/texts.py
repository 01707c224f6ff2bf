"""Languages: Portuguese is what the templates say, English is what locale/en.po says for it.

Belongs here: which language somebody reads, translating, moments and durations as people read them. Doesn't: formats
of reports (reports/).
"""

import io
from datetime import datetime, timedelta
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from starlette.requests import Request

Language = Literal["pt", "en"]
COOKIE = "idioma"


def language_of(request: Request) -> Language:
    """The language chosen by the switch, else the first of Accept-Language that there is, else Portuguese."""
    asked = request.headers.get("accept-language", "").lower().split(",")
    for name in (request.cookies.get(COOKIE, ""), *asked):
        for language in get_args(Language):
            if name.strip().startswith(language):
                found: Language = language
                return found
    return "pt"


@cache
def translations(language: Language) -> NullTranslations:
    """The catalogue of a language."""
    if language == "pt":
        return NullTranslations()
    compiled = io.BytesIO()
    with (files("notif_assets.panel") / "locale" / f"{language}.po").open("rb") as catalogue:
        write_mo(compiled, read_po(catalogue, locale=language, abort_invalid=True))
    compiled.seek(0)
    return GNUTranslations(compiled)


def clock(moment: datetime, zone: ZoneInfo, now: datetime) -> str:
    """A time of day in the billing zone, with its date unless that is today's: 14:58, or 02/02 23:59."""
    local, today = moment.astimezone(zone), now.astimezone(zone).date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%d/%m %H:%M}"


def ago(passed: timedelta, language: Language) -> str:
    """How long ago something was: há 34 s, há 2 min, há 3 h, há 4 dias.

    >>> ago(timedelta(seconds=34), "pt"), ago(timedelta(minutes=150), "en")
    ('há 34 s', '2 h ago')
    """
    told = translations(language).gettext
    seconds = max(0, int(passed.total_seconds()))
    for size, unit in ((86400, "dias"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size or size == 1:
            return told("há {n} {unit}").format(n=seconds // size, unit=told(unit))
    raise AssertionError
