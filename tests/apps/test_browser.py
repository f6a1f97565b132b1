"""Every page in a real browser: what is painted, at two widths, in light and dark; nothing leaves this machine."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.allow_localhost]

PAGES = {  # page, what is painted on it when it is ready
    "": "stDataFrame",
    "run": "stPlotlyChart",
    "inside": "stPlotlyChart",
    "latents": "stPlotlyChart",
    "neurons": "stMain",
    "lens": "stPlotlyChart",
    "attacks": "stMain",
    "tables": "stDataFrame",
    "playground": "stTextArea",
}
LOOKS = {"desktop": (1280, 900, "light"), "phone": (390, 844, "dark")}
TIMEOUT = 60_000
FOCUSED = "(e => e.getAttribute('aria-label') || e.innerText || e.tagName)(document.activeElement)"


@pytest.fixture(scope="module", params=LOOKS)
def page(request, browser, server):
    """A page of one look; requests that leave this machine are kept in `page.outside`."""
    width, height, scheme = LOOKS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    found = context.new_page()
    found.set_default_timeout(TIMEOUT)
    found.look, found.outside = request.param, []
    found.on("request", lambda r: None if _is_local(r.url) else found.outside.append(r.url))
    yield found
    context.close()


def _is_local(url: str) -> bool:
    return url.startswith(("data:", "blob:")) or re.match(r"(http|ws)://(127\.0\.0\.1|localhost)[:/]", url) is not None


def visit(page, server: str, path: str, ready: str) -> None:
    page.goto(f"{server}/{path}")
    page.wait_for_selector("h1")
    page.wait_for_selector(f"[data-testid={ready}]")
    if ready == "stPlotlyChart":
        page.wait_for_selector("[data-testid=stPlotlyChart] .main-svg")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")


@pytest.mark.parametrize("name", PAGES)
def test_page(page, server: str, screenshots: Path, name: str):
    visit(page, server, f"{name}?run=tiny%2Fga" if name else "", PAGES[name])
    page.screenshot(path=screenshots / f"{name or 'runs'}-{page.look}.png", full_page=True)
    assert page.locator("h1").inner_text().lower() == (name or "runs")
    assert not page.locator("[data-testid=stException]").count()
    assert not page.outside
    wide = "document.querySelector('[data-testid=stMain]').scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0, "the page is wider than its window"


def test_hostile_names_do_nothing(page, server: str, screenshots: Path):
    visit(page, server, f"run?run={quote('odd/<b>hostile')}", "stPlotlyChart")
    page.screenshot(path=screenshots / f"hostile-{page.look}.png", full_page=True)
    assert page.evaluate("window.hacked") is None
    assert not page.outside
    assert "<script>" in page.locator("[data-testid=stMain]").inner_text()
    assert not page.locator("a[href*='outside.example']").count()


def test_a_link_keeps_the_run(page, server: str):
    visit(page, server, "run?run=tiny%2Fnpo", "stPlotlyChart")
    if page.look == "phone":
        page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name="Inside").click()
    page.wait_for_url(re.compile(r"/inside\?.*run=tiny%2Fnpo"))
    page.wait_for_selector("h1:has-text('Inside')")


def test_every_control_is_reached_by_keyboard(page, server: str):
    visit(page, server, "inside?run=tiny%2Fga", "stPlotlyChart")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
    said = " | ".join(sorted(reached))
    assert "Run" in said
    assert "Download" in said
    assert any("drift" in text.lower() or "moved" in text.lower() for text in reached), said


def test_the_playground_answers_and_goes_on_answering(page, server: str, screenshots: Path):
    main = page.get_by_test_id("stMain")
    visit(page, server, "playground?run=tiny%2Fga", "stTextArea")
    if page.look == "phone" and page.locator("[data-testid=stSidebar][data-collapsed=false]").count():
        page.get_by_test_id("stSidebar").hover()
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
    page.get_by_role("button", name="Load the models").click()
    page.wait_for_selector("[data-testid=stPlotlyChart] .main-svg")
    for what, shown in {
        "Text": "Tokens to generate",
        "Lens": "logit lens",
        "Latents": "This run has no SAE",
        "Next token": "Next token: ga",
    }.items():
        main.get_by_test_id("stButtonGroup").get_by_text(what, exact=True).click()
        main.get_by_text(shown).first.wait_for()
    main.get_by_text("Change the edited model while it answers").click()
    main.get_by_text("put the original's activation in").click()
    main.get_by_text("after, with the change").first.wait_for()
    page.screenshot(path=screenshots / f"playground-changed-{page.look}.png", full_page=True)
    assert not main.get_by_text("could not be shown").count()
