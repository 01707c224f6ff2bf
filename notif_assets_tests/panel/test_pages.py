"""The pages in a real browser: what a customer and an operator see, do, and take away.

Belongs here: visits in Chromium. Doesn't: who may see what (test_access.py), which numbers (test_numbers.py).
"""

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pypdfium2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect, sync_playwright

from notif_assets_tests.cli.deployment import ok
from notif_assets_tests.cli.messages import ACME, PADARIA, notification
from notif_assets_tests.panel.conftest import HOSTILE, Served, now


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None and "CI" not in os.environ:
        pytest.skip("needs chromium: apt-get install chromium")
    expect.set_options(timeout=30_000)  # Dagster's state is read by a process that starts, beside other tests
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitors:
    """Pages entered by a link, and what the browser had to complain about; requests to another host are complaints."""

    def __init__(self, browser: Browser, served: Served) -> None:
        self._browser, self._served = browser, served
        self._opened: list[BrowserContext] = []
        self.complaints: list[str] = []

    def __call__(self, customer_id: int | None, locale: str = "pt-BR", **options: Any) -> Page:
        """Enters as a customer, or (None) as an operator."""
        context = self._browser.new_context(locale=locale, **options)
        self._opened.append(context)
        page = context.new_page()
        page.on("console", lambda told: self.complaints.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        page.goto(f"{self._served.url}/entrar?t={self._served.token(customer_id)}")
        return page

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self._served.url):
            self.complaints.append(request.url)

    def leave(self) -> None:
        """Closes all pages."""
        for context in self._opened:
            context.close()


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visitors]:
    """Fails if a browser had anything to complain about."""
    visitors = Visitors(browser, served)
    yield visitors
    visitors.leave()
    assert visitors.complaints == []


def count(page: Page) -> int:
    """The large number."""
    return number(page.locator("#whatsapp").inner_text())


def number(text: str) -> int:
    """A number as the pages write it."""
    return int(text.replace(".", ""))


def test_a_customer_s_visit(visit: Visitors, served: Served) -> None:
    page = visit(ACME)
    assert page.url == f"{served.url}/clientes/{ACME}"
    expect(page.get_by_role("heading", level=1)).to_have_text("Cliente: Acme")
    told = served.get(f"/api/v1/customers/{ACME}/panel").json()
    whatsapp = next(one["notifications"] for one in told["channels"] if one["channel"] == "Whatsapp")
    assert count(page) == whatsapp
    expect(page.get_by_text("Última atualização")).to_be_visible()
    expect(page.locator("#atualizado")).to_have_text(told["updated_at"][:19] + "+00:00")
    expect(page.locator("#ha")).to_have_text(re.compile(r"há \d+ (s|min)"))
    bills = page.get_by_role("table").last
    expect(bills).to_contain_text("R$ 1.000,00")
    expect(bills).to_contain_text("ajuste: mensagens atrasadas")
    month = served.get(f"/api/v1/customers/{ACME}/bills").json()["total"].replace(".", ",")
    expect(page.locator("#valor-do-mes")).to_have_text(f"R$ {month}")
    assert number(page.locator("#hoje").inner_text()) == told["notifications"]
    assert number(page.locator("#uso-total").inner_text()) == told["notifications"]


def test_numbers_stand_side_by_side_on_a_wide_screen_and_in_one_column_on_a_phone(visit: Visitors) -> None:
    page = visit(ACME, viewport={"width": 1280, "height": 900})
    places = [each.bounding_box() for each in page.locator(".numbers > section").all()]
    assert len({place["y"] for place in places if place}) == 1
    assert len({place["x"] for place in places if place}) == 4
    page.set_viewport_size({"width": 390, "height": 844})
    places = [each.bounding_box() for each in page.locator("main section").all()]
    assert len({place["x"] for place in places if place}) == 1


def test_a_chart_has_axes_and_tells_each_bar_under_the_pointer(visit: Visitors) -> None:
    page = visit(ACME)
    expect(page.locator(".levels text").first).to_have_text("0")
    assert page.locator(".plot > text").all_text_contents()[:2] == ["00:00", "03:00"]
    bars, tip = page.locator(".bar"), page.locator(".tip")
    assert bars.count() == 24
    expect(tip).to_be_hidden()
    page.locator(".bar:has(.c0)").last.hover()
    expect(tip).to_contain_text(re.compile(r"\d\d:00–\d\d:00\d+Whatsapp: \d+"))
    page.locator("h1").hover()
    expect(tip).to_be_hidden()


def test_a_chart_is_one_stop_of_the_keyboard_and_arrows_go_through_its_bars(visit: Visitors) -> None:
    page = visit(ACME)
    assert page.locator(".bar[tabindex='0']").count() == 1
    page.locator(".bar[tabindex='0']").focus()
    tip, focused = page.locator(".tip"), page.locator(".bar:focus")
    for key, hour in (
        ("Home", "00:00–01:00"),
        ("ArrowRight", "01:00–02:00"),
        ("End", "23:00–00:00"),
        ("ArrowLeft", "22:"),
    ):
        page.keyboard.press(key)
        expect(tip).to_contain_text(hour)
        expect(focused).to_have_accessible_name(re.compile(hour))
    assert page.locator(".bar[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    expect(tip).to_be_hidden()


def test_a_period_is_chosen_and_stays_while_the_page_counts_on(visit: Visitors, served: Served) -> None:
    page = visit(ACME)
    for name, bars in (("Última hora", 60), ("Hoje", 24), ("Sete dias", 7)):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator(".choice [aria-current]")).to_have_text(name)
        expect(page.locator(".bar")).to_have_count(bars)
    for label, day in (("de", "2020-02-02"), ("a", "2020-02-04")):
        page.get_by_label(label, exact=True).fill(day)
    page.get_by_role("button", name="Mostrar").click()
    expect(page.locator("#uso figcaption")).to_contain_text("por dia")
    expect(page.locator("#uso-total")).to_have_text("25.001")
    expect(page.locator(".bar").nth(1)).to_have_accessible_name(
        re.compile(r"3 de fev.*25\.001.*Whatsapp: 25\.001", re.S)
    )
    page.locator(".bar").nth(1).focus()
    page.get_by_label("a", exact=True).fill("2020-02-05")
    served.deployment.send([notification(now(), "counted on", channel="Whatsapp")])
    before = count(page)
    ok(served.deployment.call("ingest", "--until-caught-up"))
    page.locator(".bar").nth(1).focus()
    expect(page.locator("#whatsapp")).to_have_text(str(before + 1), timeout=5_000)
    expect(page.locator("#uso-total")).to_have_text("25.001")
    expect(page.locator(".bar").nth(1)).to_be_focused()
    expect(page.get_by_label("a", exact=True)).to_have_value("2020-02-05")  # what is being chosen is left alone


def test_bills_of_a_month_are_chosen_and_downloaded(visit: Visitors) -> None:
    page = visit(ACME)
    month = page.locator(".months tr", has_text="fevereiro de 2020")
    expect(month).to_contain_text("final25.001R$ 1.000,04")
    for format, beginning in (("PDF", b"%PDF"), ("Excel", b"PK"), ("CSV", b"\xef\xbb\xbf")):
        with page.expect_download() as download:
            month.get_by_role("link", name=format).click()
        assert Path(download.value.path()).read_bytes().startswith(beginning)
    month.get_by_role("link", name="fevereiro de 2020").first.click()
    expect(page.get_by_role("heading", name="Cobranças de fevereiro de 2020")).to_be_visible()
    days = page.locator("table.bills tbody tr")
    expect(days.first).to_contain_text("2020-02-")
    expect(page.locator("table.bills")).to_contain_text("ajuste: mensagens atrasadas")
    expect(page.locator("table.bills")).not_to_contain_text("provisória")


def test_statements_and_bills_of_older_months_can_be_downloaded(visit: Visitors) -> None:
    page = visit(ACME)
    page.locator("select[name=mes]").select_option("2020-02")
    with page.expect_download() as paper:
        page.get_by_role("button", name="Baixar extrato").click()
    assert paper.value.suggested_filename == f"extrato-{ACME}-2020-02.pdf"
    assert "R$ 1000,04" in pypdfium2.PdfDocument(paper.value.path())[0].get_textpage().get_text_bounded()
    for label in ("Primeiro dia", "Último dia"):
        page.get_by_label(label).fill("2020-02-03")
    with page.expect_download() as table:
        page.get_by_role("button", name="Baixar cobranças").click()
    content = io.BytesIO(Path(table.value.path()).read_bytes())  # its name ends like no workbook's
    sheet = openpyxl.load_workbook(content).active
    assert [row[6] for row in sheet.iter_rows(min_row=2, values_only=True)] == [1000, 0.04]


def test_it_updates_itself(visit: Visitors, served: Served) -> None:
    page = visit(PADARIA)
    before = count(page)
    page.locator("details summary").first.click()
    served.deployment.send(
        [notification(now(), "live", customer_id=PADARIA, customer_name="Padaria São João", channel="Whatsapp")]
    )
    ok(served.deployment.call("ingest", "--until-caught-up"))
    expect(page.locator("#whatsapp")).to_have_text(str(before + 1), timeout=5_000)
    assert page.locator("details").first.get_attribute("open") is not None


def test_it_says_so_when_it_can_t_update(visit: Visitors) -> None:
    page = visit(ACME)
    page.route("**/agora?*", lambda route: route.fulfill(status=503))
    expect(page.locator("#perdido")).to_contain_text("Sem conexão", timeout=15_000)
    page.unroute("**/agora?*")
    expect(page.locator("#perdido")).to_be_hidden(timeout=5_000)
    assert all("status of 503" in told for told in visit.complaints)
    visit.complaints.clear()


@pytest.mark.parametrize(("format", "suffix"), [("csv", "csv"), ("text", "txt"), ("parquet", "parquet")])
def test_a_report_is_taken_away(visit: Visitors, served: Served, format: str, suffix: str) -> None:
    page = visit(ACME)
    page.get_by_label("De", exact=True).fill("2020-02-03")
    page.get_by_label("Até", exact=True).fill("2020-02-03")
    page.get_by_label("Formato").select_option(format)
    with page.expect_download() as download:
        page.get_by_role("button", name="Exportar").click()
    assert download.value.suggested_filename.endswith(f".{suffix}")
    printed = served.deployment.call(
        "report", "detailed", "--customer", ACME, "--date", "2020-02-03", "--format", format
    )
    assert Path(download.value.path()).read_bytes() == ok(printed).out


def test_an_operator_s_visit(visit: Visitors, served: Served) -> None:
    page = visit(None)
    assert page.url == f"{served.url}/operador"
    runs = page.locator("a[href^='http://127.0.0.1:3000/runs/']")
    expect(runs.first).to_be_visible()  # the page did not wait for them
    assert page.locator("h2").first.inner_text() == "Verificações que falham"
    read_at = page.locator("#fila + small").inner_text()
    assert re.fullmatch(r"às (\d\d/\d\d )?\d\d:\d\d", read_at)
    page.get_by_label("Nome ou código").fill("padaria sao joao")
    page.get_by_role("button", name="Buscar").click()
    expect(page.get_by_text("1 clientes", exact=True)).to_be_visible()
    page.get_by_role("link", name="Padaria São João").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cliente: Padaria São João")
    page.get_by_role("link", name="Todos os clientes").click()
    expect(page.get_by_role("heading", name="Últimas execuções")).to_be_visible()
    expect(runs.first).to_be_visible()
    loaded = Path(f"/proc/{served.pid}/maps").read_text()
    assert "pyarrow" in loaded
    assert not re.search("/(grpc|pandas|sqlalchemy)/", loaded)  # what Dagster brings with it, and much memory


def test_what_dagster_knows_comes_after_the_page(visit: Visitors) -> None:
    def not_read_yet(route: Route) -> None:
        answer = route.fetch()
        told = '<div id="dagster" data-address="/operador/dagster" data-lost="não lido"><p role="status">sendo lido</p>'
        route.fulfill(response=answer, body=answer.text().replace('<div id="dagster">', told))

    page = visit(None)
    page.route("**/operador", not_read_yet)
    page.reload()
    expect(page.locator("a[href^='http://127.0.0.1:3000/runs/']").first).to_be_visible()
    expect(page.get_by_text("sendo lido")).to_have_count(0)
    page.route("**/operador/dagster", lambda route: route.abort())
    page.reload()
    expect(page.locator("#dagster [role=status]")).to_have_text("não lido")
    assert visit.complaints == ["Failed to load resource: net::ERR_FAILED"]
    visit.complaints.clear()


def test_without_javascript_everything_is_there(visit: Visitors) -> None:
    page = visit(ACME, java_script_enabled=False)
    assert count(page) > 0
    page.get_by_role("link", name="Sete dias").click()
    page.locator("#uso summary").click()
    rows = page.locator("#uso table tbody tr").all_inner_texts()
    assert sum(number(row.split("\t")[-1]) for row in rows) == number(page.locator("#uso-total").inner_text())
    assert page.locator(".bar title").count() == 7
    assert page.locator("noscript meta[http-equiv=refresh]").count() == 1
    expect(page.get_by_role("button", name="Exportar")).to_be_visible()


@pytest.mark.parametrize("whom", [ACME, HOSTILE, None])
@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}, "has_touch": True}],
    ids=["light", "dark", "phone"],
)
def test_no_barrier_and_nothing_beyond_the_edge(visit: Visitors, whom: int | None, options: dict[str, Any]) -> None:
    page = visit(whom, **options)
    violations = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert violations.violations_count == 0, violations.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


_CUT = """() => [...document.querySelectorAll(".n, dd, .figure, .choice a, .files a, time")].filter((each) => {
    const box = each.getBoundingClientRect();
    if (!box.width || each.closest("details:not([open])")) return false;
    const frames = [document.documentElement, each.closest(".scroll"), each.closest("section, dl")].filter(Boolean);
    return each.scrollWidth > each.clientWidth + 1 || frames.some((frame) => {
        const around = frame.getBoundingClientRect();
        const below = innerWidth < 640 && each.closest(".cards") && box.bottom > around.bottom + 1;
        return below || box.left < around.left - 1 || box.right > around.right + 1;
    });
}).map((each) => each.textContent)"""


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("whom", [ACME, PADARIA, HOSTILE, None])
def test_no_number_is_cut_on_a_phone(visit: Visitors, whom: int | None, width: int) -> None:
    page = visit(whom, viewport={"width": width, "height": 844})
    assert page.evaluate(_CUT) == []
    amounts = page.locator("table.bills .n:last-child")
    if whom is not None:
        amounts.last.evaluate("cell => { cell.textContent = 'R$ 1234567890123456,78' }")
        assert page.evaluate(_CUT) == []
        expect(amounts.last).to_be_visible()


def test_all_of_it_by_keyboard(visit: Visitors) -> None:
    page = visit(ACME)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim().slice(0, 30)"))
        if reached[-1] == "Exportar":
            break
    assert reached[0] == "Ir para o conteúdo"
    assert {"English", "Sair", "Ver como tabela", "Exportar"} <= set(reached)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_in_english_by_the_browser_and_by_the_switch(visit: Visitors) -> None:
    page = visit(ACME, "en-GB")
    expect(page.get_by_role("heading", level=1)).to_have_text("Customer: Acme")
    assert page.locator("html").get_attribute("lang") == "en"
    page.get_by_role("link", name="Seven days").click()
    page.get_by_role("link", name="Português").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cliente: Acme")
    expect(page.locator(".choice [aria-current]")).to_have_text(
        "Sete dias"
    )  # the page is the same, in another language
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cliente: Acme")
    text = visit(ACME, "en-US").locator("body").inner_text()
    for word in ("Notificações", "Última", "Cobranças", "Canal", "há "):
        assert word not in text


def test_who_has_no_link_is_told_what_to_do(browser: Browser, served: Served) -> None:
    with browser.new_context(locale="pt-BR") as context:
        page = context.new_page()
        page.goto(served.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("É preciso um link válido")
        page.goto(f"{served.url}/entrar?t=old")
        expect(page.get_by_text("Peça um novo")).to_be_visible()
