"""The console in a real browser: by keyboard alone, in both colour schemes, on a small screen, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from browser import Chromium
from campaign_rows import campaign, lone
from serving import TOKEN, Serving, settings

from monitor.store import cases
from monitor.store.alert_keys import AlertKeys
from monitor.store.redis_link import RedisOptions, connect
from monitor.store.redis_sink import RedisSink

pytestmark = pytest.mark.browser
CAMPAIGN = f"/alerts/{campaign().alert_id}"
PAGES = ("/", "/campaigns", "/rules", "/rules/trace-harvest", CAMPAIGN, "/accounts/a-1", "/readings")
TAB = 9

# Every piece of text with its colour, the colour behind it, and its size; both as the browser computed them.
CONTRAST = """
(() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const lum = c => { const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, style = getComputedStyle(e);
    const left = !walker.currentNode.data.trim() || e.closest('title,option,.sr,.skip,.on,.on2');
    if (left || !e.getClientRects().length) continue;
    const svg = e instanceof SVGElement, ink = parse(svg ? style.fill : style.color), ground = behind(e);
    const [a, b] = [lum(ink), lum(ground)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 40), e.tagName]);
  }
  return found;
})()
"""
FOCUS = """
(() => {
  const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
  return [e.tagName, (e.textContent || e.id || '').trim().slice(0, 30), s.outlineStyle, parseFloat(s.outlineWidth),
          r.width > 0 && r.height > 0,
          [...document.querySelectorAll('a[href],button,input:not([type=hidden]),select,textarea,[tabindex]')].indexOf(e)];
})()
"""


@pytest.fixture
def console(redis_url: str) -> Iterator[Serving]:
    sink = RedisSink(RedisOptions(url=redis_url))
    sink.send([campaign(1), campaign(2), campaign(3), lone(1, 1), lone(1, 2, severity="low")])
    sink.close()
    with Serving(settings(redis_url)) as serving:
        yield serving


def sign_in(page: Chromium, console: Serving) -> None:
    """By keyboard: the name has no focus at first."""
    page.goto(console.url)
    page.js("document.getElementById('name').focus()")
    page.type("Mia Analyst")
    page.key("Tab", TAB)
    page.type(TOKEN)
    page.key("Enter", 13)
    page.loaded()
    assert page.js("document.title").startswith("Alerts")


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read_and_nothing_is_refused(
    console: Serving, chromium: Callable[..., Chromium], dark: bool
) -> None:
    page = chromium(dark=dark)
    sign_in(page, console)
    grounds = set()
    for path in PAGES:
        page.goto(console.url + path)
        found = page.js(CONTRAST)
        assert len(found) > 20, path
        weak = [f for f in found if f[0] < 4.5]
        assert weak == [], path
        grounds.add(page.js("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 1
    assert (grounds == {"rgb(15, 20, 27)"}) is dark
    complaints = [text for text in page.console if "401" not in text]  # the first page asks who you are
    assert complaints == []


def test_a_style_that_is_too_pale_would_be_found(console: Serving, chromium: Callable[..., Chromium]) -> None:
    page = chromium()
    sign_in(page, console)
    page.js("document.documentElement.style.setProperty('--dim', '#b0b8c4')")
    assert [f for f in page.js(CONTRAST) if f[0] < 4.5]


def test_a_case_is_decided_by_keyboard_alone(
    console: Serving, chromium: Callable[..., Chromium], redis_url: str
) -> None:
    page = chromium()
    sign_in(page, console)
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.goto(console.url + CAMPAIGN)
    seen = []
    for _ in range(14):
        page.key("Tab", TAB)
        tag, words, outline, width, visible, index = page.js(FOCUS)
        seen.append((tag, words))
        assert outline != "none", words
        assert width >= 2, words
        assert visible, words
        assert index == len(seen) - 1, (words, "the order of the focus is that of the page")
        if tag == "TEXTAREA":
            break
    assert seen[0] == ("A", "To the content")
    assert [words for _, words in seen[1:5]] == ["Alerts", "Campaigns", "Rules", "Readings"]
    assert seen[5] == ("BUTTON", "Sign out")
    assert seen[6][0] == "TEXTAREA"
    page.type("read 12 requests")
    page.key("Tab", TAB)
    page.key("Tab", TAB)
    assert page.js(FOCUS)[1] == "Confirm abuse"
    page.key("Enter", 13)
    page.loaded()
    with connect(RedisOptions(url=redis_url)) as client:
        event = cases.case(client, AlertKeys(), campaign().alert_id).events[-1]
    assert (event.state, event.by, event.why) == ("confirmed", "Mia Analyst", "read 12 requests")
    assert "read 12 requests" in page.js("document.querySelector('#decisions').textContent")


@pytest.mark.parametrize("width", [360, 1_280])
def test_no_page_is_wider_than_the_screen(console: Serving, chromium: Callable[..., Chromium], width: int) -> None:
    page = chromium()
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    sign_in(page, console)
    for path in PAGES:
        page.goto(console.url + path)
        assert page.js("document.documentElement.scrollWidth") <= width, path


def test_plots_have_words_and_pages_have_landmarks(console: Serving, chromium: Callable[..., Chromium]) -> None:
    page = chromium()
    sign_in(page, console)
    page.goto(console.url + CAMPAIGN)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    kinds = {role for role, _ in roles}
    assert {"main", "navigation", "banner", "contentinfo", "heading", "table", "image"} <= {
        "image" if k in ("img", "image", "graphics-document") else k for k in kinds}  # fmt: skip
    images = [name for role, name in roles if role in ("img", "image")]
    assert len(images) >= 6
    assert all(len(name) > 20 for name in images)
    assert [name for role, name in roles if role in ("button", "link", "textbox") and not name] == []


HOSTILE = "<script>document.title='pwned'</script>\"'\u202e&amp;\t🙂" + "W" * 200


def test_a_thousand_alerts_with_hostile_names_stay_one_page_of_text(
    redis_url: str, chromium: Callable[..., Chromium]
) -> None:
    """On a telephone: nothing runs, nothing is too wide, and what is not shown is said and one link away."""
    sink = RedisSink(RedisOptions(url=redis_url))
    sink.send([
        lone(1, i, subject=f"{HOSTILE}{i}"[-250:], accounts=[f"{HOSTILE}{i}"[-250:]], rules=[HOSTILE, "trace-harvest"])
        for i in range(999)
    ] + [campaign(1, subject=HOSTILE)])  # fmt: skip
    sink.close()
    page = chromium()
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=False)
    with Serving(settings(redis_url)) as console:
        sign_in(page, console)
        shown = "document.querySelectorAll('tbody tr').length"
        assert page.js(shown) == 100
        more = page.js("[...document.querySelectorAll('main a')].find(a => a.href.includes('limit=')).textContent")
        assert more == "Show up to 1,000"
        page.js("[...document.querySelectorAll('main a')].find(a => a.href.includes('limit=')).click()")
        page.loaded()
        assert page.js(shown) == 1_000
        assert page.js("document.scripts.length") == 0
        assert page.js("document.documentElement.scrollWidth") <= 360
        assert page.js("document.querySelector('main').textContent.includes('filter for others')")
        link = page.js("[...document.querySelectorAll('tbody a.id')].at(-1).textContent")
        page.js("[...document.querySelectorAll('tbody a.id')].at(-1).click()")
        page.loaded()
        assert link in page.js("document.querySelector('main').textContent")
        assert page.js("document.documentElement.scrollWidth") <= 360
        assert page.js("document.title").startswith("INC-")
        complaints = [text for text in page.console if "401" not in text]
        assert complaints == [], "a script that the policy had to stop would stand here"
