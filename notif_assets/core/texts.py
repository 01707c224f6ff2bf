"""Texts from outside, shown on one line so that people see what is odd in them.

Belongs here: how a channel, a path or a file's name stands in a sentence, and what a name is searched by. Doesn't: the
layouts of reports (reports/), which escape for themselves.
"""

import json
import os
import re
import unicodedata
from typing import Final

CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Unicode's category Cc. A price list, a line of a report and a log can't hold one."""

BLANK_CHARACTERS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Every character that str.strip removes; an answer of nothing else is blank. For SQL's trim(value, characters)."""


# Characters that Markdown, or a chat behind a webhook, turns into a picture, a link, a tag or code.
_MARKUP = re.compile(r"[\[\]<>`*~|]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def quote_odd(text: str | os.PathLike[str]) -> str:
    """`text` as it is if it is plain, else as a JSON string in which every odd character is escaped.

    Odd are blanks at its ends, line breaks, control characters, quotes, bytes that are not UTF-8, and Markdown markup:
    Dagster renders the findings of a check as Markdown.

    >>> print(*map(quote_odd, ("Whatsapp", "sms ", "What\\nsapp", "fatura\\udce7.csv", "[sms]")))
    Whatsapp "sms " "What\\nsapp" "fatura\\udce7.csv" "\\u005bsms\\u005d"
    """
    whole = os.fspath(text)
    plain = whole and whole.isprintable() and whole == whole.strip() and not {'"', "\\"} & {*whole}
    return whole if plain and not _MARKUP.search(whole) else json_text(whole)


def json_text(text: str) -> str:
    """`text` as a JSON string. Unprintable characters and markup are escaped; letters outside ASCII stay."""
    quoted = "".join(c if c.isprintable() and c not in '"\\' else json.dumps(c)[1:-1] for c in text)
    return '"' + _MARKUP.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted) + '"'


def escape_controls(text: str) -> str:
    """`text` for a terminal: control characters are escaped, except line breaks, because a terminal obeys them.

    >>> print(escape_controls("red \\x1b[31m"))
    red \\u001b[31m
    """
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def escape_markdown(text: str) -> str:
    """`text` escaped for Markdown, also in a table's cell, so that it renders literally.

    >>> print(escape_markdown("![x](http://evil.example)"))
    \\!\\[x\\]\\(http\\:\\/\\/evil\\.example\\)
    """
    return _PUNCTUATION.sub(r"\\\g<0>", escape_controls(text.replace("\n", " ")))


def fold_for_search(text: str) -> str:
    """`text` in the form that searches compare: no case, no accents, no blanks at its ends.

    >>> fold_for_search(" Farmácia São João "), fold_for_search("Ótica"), fold_for_search("STRAẞE")
    ('farmacia sao joao', 'otica', 'strasse')
    """
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold().strip()
