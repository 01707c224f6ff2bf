"""The monthly statement on paper (PDF).

Belongs here: where on a page it stands. Doesn't: what it says (statement.py).

The font knows Latin, Greek and Cyrillic; another character stands there as its escape. The same statement gives the
same bytes.
"""

from datetime import UTC, datetime, time
from importlib.resources import files
from typing import TYPE_CHECKING, BinaryIO

from notif_assets.reports.statement import NUMBERS, TITLE, Section, Statement, facts, sections, totals

if TYPE_CHECKING:
    from fpdf import FPDF

_FONT = "DejaVu"
_FILES = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}
_WIDTHS = {
    "Data": 21.0,
    "Canal": 34.0,
    "Lançamento": 44.0,
    "Notificações": 25.0,
    "Preço": 22.0,
    "Valor": 27.0,
    "Situação": 17.0,
}
"""Millimetres; together the 190 between the margins of A4."""
_LINE = 5.5
_LONGEST = 300
_INK, _ON_INK, _STRIPE = (7, 94, 84), (255, 255, 255), (238, 243, 242)


def write_pdf(statement: Statement, out: BinaryIO) -> None:
    """The statement on as many pages of A4 as it takes."""
    paper = _paper(statement)
    paper.add_page()
    _title(paper, TITLE, 16)
    for name, value in facts(statement):
        _fact(paper, name, value)
    paper.ln(2)
    for name, value in totals(statement):
        _fact(paper, name, value, "B" if name == "Total" else "")
    for section in sections(statement):
        paper.ln(4)
        _title(paper, section.title, 11)
        _table(paper, section)
    out.write(bytes(paper.output()))


def _paper(statement: Statement) -> "FPDF":
    import fpdf  # imported here: it takes half a second and 25 MB, and most processes never write a PDF

    class Paper(fpdf.FPDF):
        def footer(self) -> None:
            self.set_y(-15)
            self.set_font(_FONT, size=8)
            text = f"{statement.customer_id} · {statement.month:%Y-%m} · {self.page_no()}/{{nb}}"
            self.cell(0, 10, text, align="C")

    paper = Paper()
    for style, name in _FILES.items():
        paper.add_font(_FONT, style, str(files("notif_assets.reports") / "fonts" / name))
    paper.set_title(f"{TITLE} {statement.month:%Y-%m}")
    paper.set_lang("pt-BR")
    paper.set_creation_date(datetime.combine(statement.month, time(), UTC))
    paper.set_auto_page_break(True, 20)
    return paper


def _title(paper: "FPDF", text: str, size: int) -> None:
    paper.set_font(_FONT, "B", size)
    paper.set_text_color(*_INK)
    paper.cell(0, size / 2, text, new_x="LMARGIN", new_y="NEXT")
    paper.set_text_color(0)
    paper.ln(1)


def _fact(paper: "FPDF", name: str, value: str, style: str = "") -> None:
    paper.set_font(_FONT, style, 9)
    text = f"{name}: {value}" if len(value) <= _LONGEST else f"{name}: {value[:_LONGEST]}…"
    paper.multi_cell(0, _LINE, _escape_unknown(paper, text), align="L", new_x="LMARGIN", new_y="NEXT")


def _table(paper: "FPDF", section: Section) -> None:
    """The header stands again on each page."""
    _header(paper, section)
    paper.set_font(_FONT, size=8)
    for number, row in enumerate(section.rows):
        if paper.will_page_break(_LINE):
            paper.add_page()
            _header(paper, section)
            paper.set_font(_FONT, size=8)
        paper.set_fill_color(*_STRIPE)
        _row(paper, section.header, row, fill=number % 2 == 1)


def _header(paper: "FPDF", section: Section) -> None:
    paper.set_font(_FONT, "B", 8)
    paper.set_fill_color(*_INK)
    paper.set_text_color(*_ON_INK)
    _row(paper, section.header, section.header, fill=True)
    paper.set_text_color(0)


def _row(paper: "FPDF", header: tuple[str, ...], cells: tuple[str, ...], fill: bool) -> None:
    for name, text in zip(header, cells, strict=True):
        if name in NUMBERS:
            _number(paper, text, _WIDTHS[name], fill)
        else:
            paper.cell(_WIDTHS[name], _LINE, _fitting(paper, text, _WIDTHS[name]), fill=fill)
    paper.ln(_LINE)


def _number(paper: "FPDF", text: str, width: float, fill: bool) -> None:
    """To the right; a long one is smaller, but never cut."""
    size, needed = paper.font_size_pt, paper.get_string_width(text) + 2 * paper.c_margin
    paper.set_font_size(size * min(1.0, width / needed))
    paper.cell(width, _LINE, text, align="R", fill=fill)
    paper.set_font_size(size)


def _fitting(paper: "FPDF", text: str, width: float) -> str:
    """As much of the text as the cell takes; a cut one ends with …"""
    text = _escape_unknown(paper, text[:200])
    room = width - 2 * paper.c_margin
    if paper.get_string_width(text) <= room:
        return text
    while text and paper.get_string_width(text + "…") > room:
        text = text[:-1]
    return text + "…"


def _escape_unknown(paper: "FPDF", text: str) -> str:
    """The text, with an escape for each character that the font lacks."""
    glyphs = paper.current_font.cmap  # type: ignore[union-attr]
    return "".join(c if ord(c) in glyphs else f"\\u{ord(c):04x}" for c in text)
