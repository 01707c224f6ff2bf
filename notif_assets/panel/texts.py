"""Languages: Portuguese is what the templates say, English is what locale/en.po says for it.

Belongs here: which language somebody reads, translating, moments, durations, days and numbers as people read them on a
page. Doesn't: formats of reports (reports/).
"""

import io
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from babel.dates import format_skeleton
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_compact_decimal, format_decimal
from starlette.requests import Request

from notif_assets.reports.text import brazilian, symbol, unit_price

Language = Literal["pt", "en"]
COOKIE = "idioma"
_LOCALES: Mapping[Language, str] = {"pt": "pt_BR", "en": "en"}
_FORMS: Mapping[Language, Mapping[str, str]] = {
    "pt": {"day": "yMMMEd", "short day": "Md", "month": "yMMMM", "short month": "yMMM"},
    "en": {"day": "yMMMEd", "short day": "MMMd", "month": "yMMMM", "short month": "yMMM"},
}


def language_of(request: Request) -> Language:
    """The language chosen by the switch, else the first of Accept-Language that there is, else Portuguese."""
    accepted = request.headers.get("accept-language", "").lower().split(",")
    for name in (request.cookies.get(COOKIE, ""), *accepted):
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
    translate = translations(language).gettext
    seconds = max(0, int(passed.total_seconds()))
    for size, unit in ((86400, "dias"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size or size == 1:
            return translate("há {n} {unit}").format(n=seconds // size, unit=translate(unit))
    raise AssertionError


@lru_cache(maxsize=4096)
def named(day: date, form: str, language: Language) -> str:
    """A day (`day`, `short day`) or its month (`month`, `short month`) in words.

    >>> named(date(2026, 11, 28), "short day", "pt"), named(date(2026, 11, 28), "month", "en")
    ('28/11', 'November 2026')
    """
    return str(format_skeleton(_FORMS[language][form], day, locale=_LOCALES[language]))


def label(start: datetime | date, step: str, zone: ZoneInfo, language: Language) -> tuple[str, str]:
    """What a step of time is called (minute, hour, day, month), at length and beside an axis.

    >>> label(datetime(2026, 11, 28, 14, tzinfo=ZoneInfo("UTC")), "hour", ZoneInfo("UTC"), "pt")
    ('14:00–15:00', '14:00')
    """
    if isinstance(start, datetime):
        begins, ends = start.astimezone(zone), (start + timedelta(hours=1)).astimezone(zone)
        return f"{begins:%H:%M}–{ends:%H:%M}" if step == "hour" else f"{begins:%H:%M}", f"{begins:%H:%M}"
    return named(start, step, language), named(start, f"short {step}", language)


def number(value: float, language: Language) -> str:
    """A number as people read it, without decimals.

    >>> number(1157000, "pt"), number(1157000, "en")
    ('1.157.000', '1,157,000')
    """
    return str(format_decimal(round(value), locale=_LOCALES[language]))


def short_number(value: int, language: Language) -> str:
    """A round number beside an axis, in at most a few letters.

    >>> short_number(500, "pt"), short_number(1500000, "en")
    ('500', '1.5M')
    """
    if value < 10_000:
        return number(value, language)
    return str(format_compact_decimal(value, locale=_LOCALES[language], fraction_digits=1))


def amount(value: Decimal, currency: str, language: Language) -> str:
    """Money as people read it.

    >>> amount(Decimal("1234.50"), "BRL", "pt"), amount(Decimal("1234.50"), "USD", "en")
    ('R$ 1.234,50', 'USD 1,234.50')
    """
    return f"{symbol(currency)} {brazilian(value) if language == 'pt' else f'{value:,.2f}'}"


def amounts(sums: Mapping[str, Decimal], language: Language) -> str:
    """What a sum comes to in each currency, one beside another."""
    return " · ".join(amount(value, currency, language) for currency, value in sums.items())


def price(value: Decimal, currency: str, language: Language) -> str:
    """A unit price with the decimals that it needs."""
    translate = unit_price(value, currency)
    return translate if language == "pt" else translate.replace(",", ".")


def change(now: int, before: int, language: Language) -> str:
    """By how much it is more or less than before, in per cent; nothing where there was nothing before.

    >>> change(112, 100, "pt"), change(1, 3, "en"), change(5, 0, "pt")
    ('+12%', '−67%', '')
    """
    if not before:
        return ""
    percent = round(100 * (now - before) / before)
    return f"{'−' if percent < 0 else '+'}{number(abs(percent), language)}%"
