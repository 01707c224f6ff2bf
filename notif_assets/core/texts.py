"""Texts from outside, shown on one line so that people see what is odd in them.

Belongs here: how a channel, a path or a file's name stands in a sentence, and what a name is searched by. Doesn't: the
layouts of reports (reports/), which escape for themselves.
"""

import json
import os
import unicodedata


def shown(text: str | os.PathLike[str]) -> str:
    """`text` as it is if it is plain, else as a JSON string in which every character that can't be seen is escaped.

    Blanks at its ends, line breaks, control characters, quotes and bytes of a file's name that are not UTF-8 are odd.

    >>> print(shown("Whatsapp"), shown("sms "), shown("What\\nsapp"), shown("fatura\\udce7.csv"))
    Whatsapp "sms " "What\\nsapp" "fatura\\udce7.csv"
    """
    whole = os.fspath(text)
    plain = whole and whole.isprintable() and whole == whole.strip() and not {'"', "\\"} & {*whole}
    return whole if plain else json_text(whole)


def json_text(text: str) -> str:
    """`text` as a JSON string; what is not printable is escaped, other letters than ASCII stay."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else json.dumps(c)[1:-1] for c in text) + '"'


def searched(text: str) -> str:
    """`text` as people search for it: without its case, its accents and blanks at its ends.

    >>> searched(" Farmácia São João "), searched("Ótica"), searched("STRAẞE")
    ('farmacia sao joao', 'otica', 'strasse')
    """
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold().strip()
