"""What the repository says of itself exists.

Belongs here: each kind of pointer (a path, a setting, a command, a target of make, a link, a test), followed to its
end; what every module owes its reader. Doesn't: finding pointers in texts (docs/pointers.py), what transcripts print
(docs/test_transcripts.py), what the pages of docs/reference say (docs/test_reference.py).
"""

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

from notif_assets.cli import main
from notif_assets.lake.catalogue import SCHEMAS
from notif_assets.settings import Settings
from notif_assets_tests.docs import pointers
from notif_assets_tests.docs.pointers import PACKAGES, ROOT, Text

# What users write for themselves, and what a run leaves.
_ELSEWHERE = {"data/"}
_GENERATED = ROOT / "docs" / "reference"


@cache
def _texts() -> tuple[Text, ...]:
    return tuple(pointers.texts())


@cache
def _printed() -> tuple[Text, ...]:
    """What the product prints: error texts name settings and commands."""
    product = [path for path in pointers.files() if path.suffix == ".py" and ROOT / "notif_assets" in path.parents]
    return tuple(text for path in product for text in pointers.strings_of(path))


def test_every_path_that_is_named_exists() -> None:
    missing = [
        f"{place} names {path}"
        for text in _texts()
        for place, path in pointers.paths_in(text)
        if path not in _ELSEWHERE and not pointers.exists(path, text.file)
    ]
    assert missing == [], "\n".join(["no such file or folder (or several of that name):", *missing])


def test_every_setting_that_is_named_exists() -> None:
    unknown = [
        f"{place} names {name}"
        for text in (*_texts(), *_printed())
        for place, name in pointers.settings_in(text)
        if name not in Settings.variables()
    ]
    assert unknown == [], "\n".join(["no such setting:", *unknown])


def test_every_command_that_is_shown_exists() -> None:
    wrong = [
        f"{place}: {problem}"
        for text in (*_texts(), *_printed())
        for place, words in pointers.commands_in(text)
        if (problem := _problem_of(words))
    ]
    assert wrong == [], "\n".join(["no such command or option:", *wrong])


def _problem_of(words: list[str]) -> str | None:
    """Why `notif-assets WORDS…` is no call, None if it is one; what its values are is not looked at."""
    command: click.Command = main
    path = "notif-assets"
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        name, *words = words
        if name not in command.commands:
            return f"{path} has no command {name}"
        command, path = command.commands[name], f"{path} {name}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        option = re.match(r"--[a-z][a-z-]*", word)
        if option and option[0] not in known | {"--help", "--version"}:
            return f"{path} has no option {option[0]}"
    return None


def test_every_target_of_make_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    texts = (*_texts(), *_printed())
    missing = [
        f"{place} shows make {target}"
        for text in texts
        for place, target in pointers.targets_in(text)
        if target not in targets
    ]
    assert missing == []


def test_every_module_that_is_run_exists() -> None:
    missing = [
        f"{place} runs {module}"
        for text in _texts()
        for place, module in pointers.modules_in(text)
        if not any((ROOT / module.replace(".", "/")).with_suffix(suffix).exists() for suffix in ("", ".py"))
    ]
    assert missing == []


def test_every_link_leads_somewhere() -> None:
    broken = []
    for text in _texts():
        if text.file.suffix != ".md":
            continue
        for place, path, anchor in pointers.links_in(text):
            target = (text.file.parent / path).resolve() if path else text.file
            if not target.exists() or (anchor and anchor not in pointers.anchors_of(target)):
                broken.append(f"{place} links to {path}{'#' if anchor else ''}{anchor}")
    assert broken == []


@cache
def _words() -> frozenset[str]:
    """Every word of the repository but those of its documents."""
    readable = {".py", ".sql", ".toml", ".yaml", ".html", ".js", ".css", ".conf", ".po", ".csv", ".json", ".txt"}
    words: set[str] = set(SCHEMAS)
    for path in pointers.files():
        if path.suffix in readable or path.name in ("Makefile", "run"):
            words.update(re.findall(r"\w+", path.read_text(encoding="utf-8", errors="replace")))
    return frozenset(words)


def test_every_name_in_a_document_is_one_of_the_code() -> None:
    """A table, column, function or test in `code` that was renamed is a dead pointer too."""
    unknown = [
        f"{place} names {name}"
        for text in _texts()
        if text.file.suffix == ".md" and _GENERATED not in text.file.parents
        for place, span in pointers.spans_in(text)
        for name in re.findall(r"(?<![\w/])[a-z]+(?:_[a-z0-9]+)+(?!\w)", span)
        if name not in _words()
    ]
    assert unknown == []


def test_every_test_that_is_named_is_in_its_file() -> None:
    missing = []
    for text in _texts():
        for match in re.finditer(r"([\w/]+\.py)::(test_\w+)", text.text):
            found = [path for path in pointers.files() if str(path).endswith(match[1])]
            if not any(f"def {match[2]}(" in path.read_text(encoding="utf-8") for path in found):
                missing.append(f"{text.at(match.start())} names {match[0]}")
    assert missing == []


def test_every_sql_file_is_asked_for() -> None:
    """One that no module names answers no question. Templates of the kit are taken by their folder."""
    named = {string.text for string in _printed()}
    prefixes = tuple(re.escape(s.text.split("{")[0]) for s in _printed() if re.fullmatch(r"[a-z]+_", s.text))
    unused = [
        str(path.relative_to(ROOT))
        for path in pointers.files()
        if path.suffix == ".sql" and path.stem not in named and not path.stem.startswith(prefixes)
        if not {"templates", "golden"} & set(path.parts)
    ]
    assert unused == []


def test_every_decision_is_listed_and_says_why_and_what_follows() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    for number, page in enumerate(pages, 1):
        text = page.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix(f"# {number}. ")
        assert page.name.startswith(f"{number:04}-"), f"{page.name}: the next number is {number:04}"
        assert f"{number}. [{title}]({page.name})\n" in index, f"{page.name} is not listed in docs/decisions/README.md"
        found = re.findall(r"^\*\*(\w+)\.\*\*", text, re.M)
        assert found == ["Context", "Decision", "Consequences"], f"{page.name} has {found}"


def test_the_glossary_has_each_word_once() -> None:
    glossary = (ROOT / "docs" / "style.md").read_text(encoding="utf-8").partition("| word | meaning |")[2]
    words = [word for row in re.findall(r"^\| ([^|]+) \|", glossary, re.M) for word in row.split(", ") if word != "---"]
    assert len(words) > 40
    assert len(words) == len(set(words))


def test_documents_name_their_subjects() -> None:
    """Plain English: no riddle in place of a name."""
    riddles = re.compile(r"\b(?:whoever|whosoever|whatsoever|somebody|therein|thereof|hereby)\b", re.I)
    found = [
        f"{text.at(match.start())}: {match[0]}"
        for text in _texts()
        if text.file.suffix == ".md" and _GENERATED not in text.file.parents
        for match in riddles.finditer(text.text)
    ]
    assert found == []


def test_nothing_points_outside_the_repository() -> None:
    """The repository stands alone: no design, plan or finding that its reader doesn't have."""
    outside = re.compile(r"\bDESIGN\b|\bHOUSE\b|\bissue \d+")
    found = [f"{text.at(match.start())}: {match[0]}" for text in _texts() for match in outside.finditer(text.text)]
    assert found == []


def test_hooks_fetch_nothing_and_run_what_is_installed() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
    entries = re.findall(r"entry: (.+)", hooks)
    assert {entry.split()[0] for entry in entries} == {f".venv/bin/{tool}" for tool in ("ruff", "mypy", "pytest")}
    named = [word for entry in entries for word in entry.split() if word.endswith(".py")]
    assert [word for word in named if not (ROOT / word).exists()] == []


_MODULES = [
    path.relative_to(ROOT)
    for path in pointers.files()
    if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES
]


@pytest.mark.parametrize("module", [m for m in _MODULES if (ROOT / m).stat().st_size], ids=str)
def test_every_module_says_what_it_is_for(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / module).read_text(encoding="utf-8")))
    assert docstring, f"{module} has no docstring"
    if module.name in ("__init__.py", "__main__.py") or module.name.startswith("test_"):
        return  # a package's face and a test say it in one sentence
    assert "Belongs here:" in docstring, f"{module}: say what belongs in it, after 'Belongs here:'"
    assert "Doesn't:" in docstring, f"{module}: say what doesn't, and where that is, after 'Doesn't:'"
