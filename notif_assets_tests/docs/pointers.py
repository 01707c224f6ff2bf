"""Where the texts of the repository point: files, folders, settings, commands, targets of make, links.

Belongs here: which texts there are, and finding in a text what names something else. Doesn't: which of it must exist
(test_tidy.py), what the documents of docs/ say.

A text is a Markdown document, the comments of a SQL file, a Makefile or a configuration, and the docstrings and
comments of a Python module.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import notif_assets

ROOT = Path(notif_assets.__file__).resolve().parents[1]
PACKAGES = ("notif_assets", "notif_assets_tests", "bench")

_NOT_OURS = {"data", "history", "logs", "storage", "schedules", "__pycache__", "node_modules", "build", "dist"}
_KINDS = "py|sql|md|html|css|js|po|toml|conf|png|yaml"
_PATH = re.compile(rf"(?<![\w./:@$-])((?:[\w.*<>-]+/)*[\w*<>][\w.*<>-]*\.(?:{_KINDS}))(?![\w/(-]|\.\w)")
_FILE = re.compile(r"(?<![\w/])((?:notif_assets|notif_assets_tests|bench|deploy|docs)/[\w./*=<>-]*[\w*>])(?![\w({…])")
_FOLDER = re.compile(r"(?<![\w./:@$=<>{}~-])((?:[a-z_]{2,}/)+)(?![\w*{<=$.…-])")
_SETTING = re.compile(r"\bNOTIF_[A-Z][A-Z_]*[A-Z]\b")
_COMMAND = re.compile(
    r"(?:(?<=`)|(?<=\$ )|(?<=&& )|(?<=Example: )|^\s*)(?:[A-Z_]+=\S+ )*notif-assets( [^`\n|&#>]*)?", re.M
)
_TARGET = re.compile(r"(?:(?<=`)|(?<=\$ )|^\s*)make ([a-z][a-z-]*)(?=[`\s])(?! \w+ (?:is|are))", re.M)
_MODULE = re.compile(r"python -m ((?:notif_assets|notif_assets_tests|bench)(?:\.\w+)*)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)


@dataclass(frozen=True)
class Text:
    """What people read of a file, with the line that it begins in."""

    file: Path
    line: int
    text: str

    def at(self, position: int) -> str:
        """`file:line` of a position in the text, for people."""
        return f"{self.file.relative_to(ROOT)}:{self.line + self.text.count(chr(10), 0, position)}"


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository, whether or not it is committed; nothing that tools or runs leave behind."""
    return tuple(sorted(_below(ROOT)))


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            if path.name == ".ci" or not (path.name in _NOT_OURS or path.name.startswith(".") or path.is_symlink()):
                yield from _below(path)
        else:
            yield path


def documents() -> list[Path]:
    """The Markdown documents."""
    return [path for path in files() if path.suffix == ".md"]


def texts() -> Iterator[Text]:
    """Every text that people read, but for what the code prints."""
    for path in files():
        if path.suffix == ".py":
            yield from prose_of(path)
        elif path.suffix == ".md":
            yield Text(path, 1, path.read_text(encoding="utf-8"))
        elif path.suffix == ".sql":
            yield _comments(path, "--")
        elif path.suffix in (".yaml", ".toml", ".conf", ".lock") or path.name in ("Makefile", "run"):
            yield _comments(path, "#")


def _comments(path: Path, mark: str) -> Text:
    """The file with everything but its comments made blank, so that lines keep their numbers."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = (line.strip().removeprefix(mark) if line.strip().startswith(mark) else "" for line in lines)
    return Text(path, 1, "\n".join(kept))


def prose_of(path: Path) -> Iterator[Text]:
    """The docstrings and comments of a Python module."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Text(path, node.lineno, node.value.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(path, token.start[0], token.string.lstrip("# "))


def strings_of(path: Path) -> Iterator[Text]:
    """Every string of a Python module, docstrings too: what it prints and what it asks for by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(path, node.lineno, node.value)


def paths_in(text: Text) -> Iterator[tuple[str, str]]:
    """(place, path) of each file and folder that a text names as one of the repository."""
    found: dict[int, str] = {}
    for pattern in (_PATH, _FILE, _FOLDER):
        found |= {match.start(): match[1] for match in pattern.finditer(text.text)}
    for position, path in sorted(found.items()):
        yield text.at(position), path


def settings_in(text: Text) -> Iterator[tuple[str, str]]:
    """(place, variable) of each setting that a text names."""
    for match in _SETTING.finditer(text.text):
        yield text.at(match.start()), match[0]


def commands_in(text: Text) -> Iterator[tuple[str, list[str]]]:
    """(place, words after `notif-assets`) of each command that a text shows."""
    for match in _COMMAND.finditer(text.text):
        if words := (match[1] or "").split():
            yield text.at(match.start()), words


def targets_in(text: Text) -> Iterator[tuple[str, str]]:
    """(place, target) of each `make TARGET` that a text shows."""
    for match in _TARGET.finditer(text.text):
        yield text.at(match.start()), match[1]


def modules_in(text: Text) -> Iterator[tuple[str, str]]:
    """(place, module) of each `python -m MODULE` of the repository's own."""
    for match in _MODULE.finditer(text.text):
        yield text.at(match.start()), match[1]


def _blanked(match: re.Match[str]) -> str:
    """Of equal length and lines, so that places stay."""
    return re.sub(r"[^\n]", " ", match[0])


def links_in(text: Text) -> Iterator[tuple[str, str, str]]:
    """(place, path or '' for the document itself, anchor or '') of each link of a document to the repository."""
    prose = _FENCE.sub(_blanked, text.text)
    for match in _LINK.finditer(prose):
        if not match[1].startswith(("http://", "https://", "mailto:")):
            path, _, anchor = match[1].partition("#")
            yield text.at(match.start()), path, anchor


def spans_in(text: Text) -> Iterator[tuple[str, str]]:
    """(place, content) of each `code span` of a document."""
    prose = _FENCE.sub(_blanked, text.text)
    for match in _SPAN.finditer(prose):
        yield text.at(match.start()), match[1]


def anchors_of(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    prose = _FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def exists(path: str, named_in: Path) -> bool:
    """Whether a path, as a text of `named_in` gives it, is a file or folder of the repository.

    It begins at the file's folder, at a folder above it or at a package. A name without a folder may also be of a file
    anywhere, if no other file has that name; in a document a folder's name may be of several. `*` and `<name>` stand
    for anything.
    """
    pattern = re.sub(r"<[^>]*>", "*", path)
    bases = [base for base in named_in.parents if base == ROOT or ROOT in base.parents]
    bases += [ROOT / package for package in PACKAGES] + [ROOT / "docs"]
    if any(_is_there(base, pattern) for base in bases):
        return True
    if pattern.endswith("/") and named_in.suffix == ".md":  # of each room, as it says there
        return any(folder.is_dir() for package in PACKAGES for folder in (ROOT / package).glob(f"**/{pattern}"))
    if "/" in pattern:
        return False
    return len([file for file in files() if file.match(pattern)]) == 1


def _is_there(base: Path, pattern: str) -> bool:
    if "*" not in pattern:
        return (base / pattern).exists()
    return any(base.glob(pattern.rstrip("/")))
