"""What a reader sees and does, in headless Chromium: whatever is on the PATH, driven by playwright."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from leakcheck.report.html import render

from ..documents import DOCUMENTS, large

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome on the PATH")

WIDTHS = (375, 768, 1440)
LAYOUT, CONTRAST, CELL = (Path(__file__).with_name(f"{name}.js").read_text() for name in ("layout", "contrast", "cell"))


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The page of each document, on disk."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {}
    for name, document in {**DOCUMENTS, "large": large()}.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_bytes(render(document).encode("utf-8", "backslashreplace"))
    return paths


@contextmanager
def opened(browser, path: Path, **options):
    """A page; what it says on the console, opens or asks for makes the test fail."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (told.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: told.append(f"request: {request.url}"))
    page.goto(path.as_uri())
    assert told == [f"request: {path.as_uri()}"]
    told.clear()
    yield page
    assert [line for line in told if not line.startswith("request: data:")] == []
    context.close()


@pytest.mark.parametrize("name", [*DOCUMENTS, "large"])
def test_nothing_leaves_the_page_or_lies_on_something_else(name, browser, files):
    with opened(browser, files[name]) as page:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(LAYOUT) == []
        if name in ("leak", "hostile"):
            page.click("[data-fold=open]")
            page.evaluate("document.querySelectorAll('details').forEach((e) => (e.open = true))")
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate(LAYOUT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_legible(scheme, browser, files):
    for name in ("leak", "clean", "generic"):
        with opened(browser, files[name], color_scheme=scheme) as page:
            page.click("[data-fold=open]")
            assert page.evaluate(CONTRAST) == [True]
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
            assert dark == (scheme == "dark")


def test_names_do_nothing(browser, files):
    with opened(browser, files["hostile"]) as page:
        assert page.locator("script:not([type])").count() == 1
        page.click("[data-fold=open]")
        assert "<script>alert(1)</script>" in page.inner_text("main")


def test_the_policy_holds_where_escaping_would_fail(browser, files, tmp_path):
    text = files["leak"].read_text()
    broken = tmp_path / "broken.html"
    attack = (
        "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"><p style='color:red' id=p>"
    )
    broken.write_text(text.replace("<main>", f"<main>{attack}"))
    context = browser.new_context()
    page = context.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(broken.as_uri())
    assert page.title().startswith("LEAK")
    assert page.evaluate("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
    assert sum("Content Security Policy" in line for line in refused) >= 3
    context.close()


def test_stages_unfold_by_mouse_and_by_keyboard(browser, files):
    with opened(browser, files["leak"]) as page:
        button, below = page.locator("button.fold").nth(7), page.locator("#below-8")
        assert (button.get_attribute("aria-expanded"), below.is_visible()) == ("false", False)
        button.click()
        assert (button.get_attribute("aria-expanded"), below.is_visible()) == ("true", True)
        assert page.locator("#below-8 tr.layer").count() == 6
        page.keyboard.press("Enter")
        assert (button.get_attribute("aria-expanded"), below.is_visible()) == ("false", False)
        page.click("[data-fold=open]")
        assert all(row.is_visible() for row in page.locator("tbody.below").all())
        page.click("[data-fold=close]")
        assert not any(row.is_visible() for row in page.locator("tbody.below").all())


def test_without_a_script_everything_is_unfolded(browser, files):
    with opened(browser, files["leak"], java_script_enabled=False) as page:
        assert all(row.is_visible() for row in page.locator("tbody.below").all())
        assert not page.locator(".copy").first.is_visible()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, files):
    with opened(browser, files["leak"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "verdict"
        reached = set()
        for _ in range(120):
            page.keyboard.press("Tab")
            kind, outline, width = page.evaluate("""() => {
                const [at, style] = [document.activeElement, getComputedStyle(document.activeElement)];
                return [at.className || at.tagName, style.outlineStyle, parseFloat(style.outlineWidth)];
            }""")
            if kind == "BODY":
                break
            reached.add(kind)
            assert outline != "none", kind
            assert width >= 2, kind
        assert {"fold", "heat-scroll", "node", "scroll", "source", "copy", "SUMMARY"} <= reached


def cell(page, figure: int, row: int, column: int) -> tuple[float, float]:
    """Where on the screen the middle of a cell is."""
    page.locator(".heat-scroll svg").nth(figure).scroll_into_view_if_needed()
    return page.evaluate(CELL, [figure, row, column])


def told(page, figure: int) -> str:
    return page.locator(".heat output").nth(figure).inner_text()


def test_pointing_at_a_cell_shows_its_exact_values(browser, files):
    document = DOCUMENTS["leak"]
    with opened(browser, files["leak"]) as page:
        page.mouse.move(*cell(page, 0, 1, 3))
        assert told(page, 0) == "standard L1, position 3: sees +9 ahead"
        page.mouse.move(*cell(page, 0, 6, 12))
        assert told(page, 0) == "outputs, position 12: sees +0, nothing ahead"
        page.mouse.move(*cell(page, 1, 2, 9))
        delta = document.delta_matrix.deltas[2][9]
        assert told(page, 1) == f"output position 2, input position 9 (which it may not see): delta {delta}"
        page.mouse.move(*cell(page, 1, 9, 9))
        assert told(page, 1) == "output position 9, input position 9 (which it may see): delta 1"
    with opened(browser, files["hostile"]) as page:
        page.mouse.move(*cell(page, 1, 0, 1))
        assert told(page, 1).endswith("delta inf")
        page.mouse.move(*cell(page, 0, 0, 0))
        assert told(page, 0).endswith("position 0: sees ? (the proof has a hole)")


def test_arrow_keys_move_between_cells(browser, files):
    with opened(browser, files["leak"]) as page:
        page.locator(".heat-scroll").nth(1).focus()
        assert told(page, 1).startswith("output position 0, input position 0 ")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
            page.keyboard.press(key)
        assert told(page, 1).startswith("output position 1, input position 1 ")
        page.keyboard.press("End")
        page.keyboard.press("PageDown")
        page.keyboard.press("ArrowDown")
        assert told(page, 1).startswith("output position 12, input position 12 ")


def test_a_touch_shows_the_values(browser, files):
    with opened(browser, files["leak"], viewport={"width": 375, "height": 800}, has_touch=True, is_mobile=True) as page:
        page.touchscreen.tap(*cell(page, 1, 4, 2))
        assert told(page, 1).startswith("output position 4, input position 2 ")


def test_zooming_keeps_the_page_and_the_values(browser, files):
    with opened(browser, files["large"], viewport={"width": 375, "height": 800}) as page:
        svg, figure = page.locator(".heat-scroll svg").nth(1), page.locator("figure").nth(1)
        width = svg.bounding_box()["width"]
        for _ in range(3):
            figure.locator("[data-zoom=in]").click()
        assert svg.bounding_box()["width"] == pytest.approx(1.5**3 * width)
        assert page.evaluate(LAYOUT) == []
        page.locator(".heat-scroll").nth(1).focus()
        page.keyboard.press("End")
        x, y = cell(page, 1, 0, 127)
        assert 0 < x < 375
        page.mouse.move(x, y)
        assert told(page, 1).startswith("output position 0, input position 127 ")
        page.keyboard.press("0")
        assert svg.bounding_box()["width"] == width


def test_the_command_can_be_copied(browser, files):
    permissions = ["clipboard-read", "clipboard-write"]
    with opened(browser, files["leak"], permissions=permissions) as page:
        page.locator(".copy").first.click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == DOCUMENTS["leak"].findings[0].reproduce


def test_on_paper_everything_is_open_and_white(browser, files):
    with opened(browser, files["leak"], color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page')") == "#fbfbfa"
        assert all(row.is_visible() for row in page.locator("tbody.below").all())
        assert not page.locator("nav").is_visible()
        unseen = page.evaluate("""() => [...document.querySelectorAll("main details > *")]
            .filter((e) => !e.checkVisibility({ contentVisibilityAuto: true })).map((e) => e.textContent)""")
        assert unseen == []
        assert page.pdf().startswith(b"%PDF")
