"""The catalogue: every text of the pages has its English, and nothing is left over."""

import re
from importlib.resources import files

from babel.messages.pofile import read_po
from starlette.requests import Request

from notif_assets.panel.texts import language_of


def test_every_text_has_its_english() -> None:
    room = files("notif_assets.panel")
    with (room / "locale" / "en.po").open("rb") as catalogue:
        english = {str(message.id): message.string for message in read_po(catalogue) if message.id}
    templates = [entry.read_text(encoding="utf-8") for entry in (room / "templates").iterdir()]
    used = {text for template in templates for text in re.findall(r'_\("([^"]+)"\)', template)}
    assert used | {"dias", "h", "min", "s", "há {n} {unit}"} == set(english)
    assert all(english.values())
    for portuguese, text in english.items():
        assert set(re.findall(r"\{\w+\}", portuguese)) == set(re.findall(r"\{\w+\}", str(text)))


def test_the_language_is_that_of_the_switch_then_of_the_browser_then_portuguese() -> None:
    def language(accepted: str, cookie: str = "") -> str:
        headers = [(b"accept-language", accepted.encode()), (b"cookie", cookie.encode())]
        return language_of(Request({"type": "http", "headers": headers}))

    assert language("en-US,en;q=0.9,pt;q=0.8") == "en"
    assert language("pt-BR,pt;q=0.9,en;q=0.8") == "pt"
    assert language("de-DE,de;q=0.9,en;q=0.8") == "en"
    assert language("de") == language("") == language("*") == "pt"
    assert language("pt-BR", "idioma=en") == "en"
