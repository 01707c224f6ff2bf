"""The words of docs/style.md: names of the code use none that it avoids.

Belongs here: words that have several meanings, or none. Doesn't: the glossary's form (test_tidy.py).
"""

import ast

import pytest

from notif_assets_tests.docs.pointers import ROOT

_AVOIDED = {
    "place",
    "places",
    "told",
    "asked",
    "published",
    "publish",
    "judge",
    "judged",
    "settle",
    "settled",
    "pump",
    "truth",
    "damage",
    "blanks",
    "whose",
    "somebody",
    "nobody",
    "theirs",
    "ours",
    "thing",
    "things",
    "hush",
    "hand",
}
_PACKAGE = ROOT / "notif_assets"


def _names(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
    return names


@pytest.mark.parametrize("room", sorted(path.name for path in _PACKAGE.iterdir() if (path / "__init__.py").exists()))
def test_no_name_has_a_word_that_the_style_avoids(room: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (_PACKAGE / room).rglob("*.py")
        for name in _names(ast.parse(path.read_text(encoding="utf-8")))
        if _AVOIDED.intersection(name.lower().strip("_").split("_"))
    }
    assert found == set(), "\n".join(["see the words that docs/style.md avoids:", *sorted(found)])


def test_the_avoided_words_are_those_of_the_document() -> None:
    listed = (ROOT / "docs" / "style.md").read_text(encoding="utf-8").partition("| not | but |")[2]
    words = {
        word.strip(" ,") for line in listed.splitlines() if line.count("|") == 3 for word in line.split("|")[1].split()
    }
    assert _AVOIDED - {"places", "settled", "things", "somebody", "hand"} <= words
