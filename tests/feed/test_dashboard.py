"""The dashboard in headless Chromium, over a farm that saves nothing."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fake_farm import TOKEN, FakeFarm, folder
from free_ports import free_port

from luna_farm import system
from luna_farm.feed import auth
from luna_farm.feed.requests import Act

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync"]
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "follow_feed.html"

try:
    from axe_playwright_python.async_playwright import Axe
    from playwright.async_api import Browser, Page, async_playwright, expect

    expect.set_options(timeout=60_000)  # a busy machine takes its time
    MISSING = "" if CHROMIUM else "no chromium on this machine (Debian: apt-get install chromium)"
except ImportError as error:
    MISSING = f"{error.name} is not installed (pip install playwright axe-playwright-python)"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(MISSING), reason=f"THE DASHBOARD IS NOT TESTED: {MISSING}"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def farm() -> AsyncIterator[FakeFarm]:
    fake = FakeFarm()
    fake.now = datetime.now(timezone.utc)
    feed = await fake.serve(free_port())  # one that stays free while it is lost
    yield fake
    await feed.close()


class Screen:
    """One open page, and everything that went wrong in it."""

    def __init__(self, page: Page, farm: FakeFarm) -> None:
        self.page = page
        self.farm = farm
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.weight = 0
        page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))

    @property
    def home(self) -> str:
        assert self.farm.feed is not None
        return f"http://127.0.0.1:{self.farm.feed.port}/"

    async def open(self, fragment: str = "") -> None:
        await self.page.goto(self.home + fragment)
        await self.shows("#live", "Live")

    async def shows(self, selector: str, text: str) -> None:
        await expect(self.page.locator(selector)).to_contain_text(text)


@pytest_asyncio.fixture(loop_scope="module")
async def screen(browser: Browser, farm: FakeFarm) -> AsyncIterator[Screen]:
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    yield Screen(await context.new_page(), farm)
    await context.close()


def full(farm: FakeFarm) -> None:
    """Give the farm something for every part of the page."""
    for _ in range(10):
        farm.job()
    farm.dead_letters = [
        {"job_id": "a1b2c3d4", "index": 0, "path": "/x.png", "error": "The disk is full.", "code": "disk"}
    ]
    farm.folders.append(
        {
            **folder("/mnt/full", free=0),
            "state": "failing",
            "error": "No space left on device",
            "since_s": 61.0,
        }
    )
    farm.workers[0].update(
        state="busy", cpu_percent=93.0, current={"job_id": "cafe0001", "path": "/out/night.png"}
    )


async def test_it_shows_what_the_farm_does_while_it_saves(screen: Screen, farm: FakeFarm) -> None:
    await screen.open()
    await screen.shows("#empty", "nothing has been sown yet")
    assert farm.feed is not None
    farm.feed.wants_thumbnail = lambda: True  # type: ignore[method-assign]
    full(farm)
    await screen.shows("#f-saved", str(farm.saved))
    await expect(screen.page.locator("#empty")).to_be_hidden()
    await screen.shows("#workers", "night.png job cafe0001")
    await screen.shows("#workers", "93 %")
    await screen.shows("#folders", "Cannot be written for 1 min: No space left on device")
    await screen.shows("#trouble", "The disk is full.")
    await expect(screen.page.locator("#results li")).to_have_count(18)
    await expect(screen.page.locator("#results li:not(.rejected) img").nth(10)).to_be_attached()
    farm.job(images=5)
    await screen.shows("#f-saved", str(farm.saved))
    await screen.shows("#results li:first-child .name", f"night_{farm.jobs:04d}")
    await expect(screen.page.locator("#c-rate .line")).to_have_attribute("d", re.compile("L"))
    await expect(screen.page.locator("#c-save svg")).to_have_attribute(
        "aria-label", re.compile(r"Time to save: \d")
    )
    assert screen.complaints == []


async def test_results_that_came_without_a_thumbnail_get_it_from_the_gallery(
    screen: Screen, farm: FakeFarm
) -> None:
    small = base64.b64encode(b"\xff\xd8\xff no more").decode()

    async def answer(route: Any) -> None:
        assert route.request.url.endswith("/api/gallery/thumbnails?images=cafe0001/3")
        await route.fulfill(json={"thumbnails": {"cafe0001/3": small}})

    await screen.page.route(re.compile("/api/gallery/thumbnails"), answer)
    farm.catalogue = True
    await screen.open()
    about = {"index": 3, "path": "/out/a.png", "bytes": 1, "ms": 1.0, "format": "png", "score": None}
    farm.event("image_saved", "cafe0001", **about)
    shown = expect(screen.page.locator("#results img"))
    await shown.to_have_attribute("src", f"data:image/jpeg;base64,{small}")


async def test_it_needs_nothing_from_elsewhere(screen: Screen) -> None:
    await screen.open()
    assert all(address.startswith(screen.home) for address in screen.addresses)
    assert len(screen.addresses) <= 8
    used = await screen.page.evaluate("performance.getEntriesByType('paint').map((entry) => entry.name)")
    assert "first-contentful-paint" in used


async def test_names_are_text_and_never_markup(screen: Screen, farm: FakeFarm) -> None:
    await screen.open()
    evil = "/out/<img src=x onerror=document.title='owned'>.png"
    farm.event("image_saved", "a", index=0, path=evil, bytes=1, ms=1.0, format="<b>", score=None)
    farm.dead_letters = [{"job_id": "<script>1</script>", "error": evil}]
    await screen.shows("#results", "<img src=x")
    await screen.shows("#trouble", "<script>1</script>")
    assert await screen.page.locator("#results img, #trouble script").count() == 0
    assert screen.complaints == []


async def test_retry_asks_for_the_token_and_then_works(screen: Screen, farm: FakeFarm) -> None:
    full(farm)
    await screen.open()
    page = screen.page
    await page.get_by_role("button", name="Retry image 0 of job a1b2c3d4").click()
    await expect(page.locator("#token-dialog")).to_be_visible()
    assert farm.acted == []
    await page.get_by_label("Token", exact=True).fill("wrong")
    await page.keyboard.press("Enter")
    await screen.shows("#token-error", "not that of the running farm")
    assert await page.evaluate("sessionStorage.length") == 0
    await page.get_by_label("Token", exact=True).fill(TOKEN)
    await page.get_by_role("button", name="Use it").click()
    await screen.shows("#trouble .answer", "it waits for a worker")
    assert farm.acted == [("retry", "a1b2c3d4")]
    await expect(page.locator("#unlock")).to_have_text("Log out")
    assert TOKEN not in str(await page.evaluate("JSON.stringify({...sessionStorage})"))
    farm.event("image_saved", "a1b2c3d4", index=0, path="/out/after_all.png", bytes=1, ms=1.0, score=None)
    await screen.shows("#trouble .answer", "Saved to /out/after_all.png")
    await page.get_by_role("button", name="Hide image 0").click()
    await screen.shows("#trouble", "/mnt/full fails for 1 min")
    await expect(page.locator("#trouble li")).to_have_count(1)


async def test_a_retry_that_fails_again_says_so(screen: Screen, farm: FakeFarm) -> None:
    full(farm)
    await screen.open(f"#token={TOKEN}")
    await screen.page.get_by_role("button", name="Retry image 0").click()
    await screen.shows("#trouble .answer", "it waits for a worker")
    farm.event(
        "image_failed", "a1b2c3d4", index=0, path="/x.png", error="No encoder takes it.", code="encode"
    )
    await screen.shows("#trouble", "No encoder takes it.")
    await screen.shows("#say", "Failed again: image 0 of job a1b2c3d4.")


async def test_a_dead_letter_is_dismissed_after_a_second_click(screen: Screen, farm: FakeFarm) -> None:
    full(farm)
    await screen.open(f"#token={TOKEN}")
    button = screen.page.get_by_role("button", name="Dismiss image 0")
    await button.click()
    await expect(button).to_have_text("Delete its pixels?")
    assert farm.acted == []
    await button.click()
    await screen.shows("#trouble .answer", "its dead letter is removed")
    assert farm.acted == [("dismiss", "a1b2c3d4")]


async def test_the_figure_says_what_needs_attention(screen: Screen, farm: FakeFarm) -> None:
    full(farm)
    farm.notes = ["Feed port 1 cannot be used."]
    await screen.open()
    await screen.shows("#f-failed", "3")
    await screen.shows("#f-failed-sub", "1 failed image, 1 failing folder, 1 note")
    await screen.page.locator("#f-failed-sub").click()
    await screen.shows("#trouble", "Feed port 1 cannot be used.")
    assert await screen.page.locator("#trouble li").count() == 3


async def test_a_job_that_lacks_images_needs_attention_until_it_is_dismissed(
    screen: Screen, farm: FakeFarm
) -> None:
    why = "It was never handed over."
    row = {"job_id": "cafe0001", "num_images": 40, "images": 15, "path": "/out/b.png", "error": why}
    farm.incomplete_jobs = [row]
    farm.dead_letters = [{"job_id": "cafe0001", "error": "no"}]
    await screen.open(f"#token={TOKEN}")
    await screen.shows("#f-failed-sub", "1 failed image, 1 incomplete job")
    await screen.shows("#trouble", f"15 of 40 images not saved: {why}")
    await screen.page.get_by_role("button", name="Dismiss job cafe0001").click()
    await screen.shows("#trouble", "It has failed images, too: retry or dismiss these first.")
    assert farm.acted == [], "their pixels would go with it"
    farm.dead_letters = []
    await expect(screen.page.locator("#trouble li")).to_have_count(1)
    await screen.page.get_by_role("button", name="Dismiss job cafe0001").click()
    await screen.shows("#f-failed", "0")
    assert farm.acted == [("dismiss", "cafe0001")]


async def test_the_pool_is_paused_and_a_job_cancelled(screen: Screen, farm: FakeFarm) -> None:
    farm.open_jobs = [{"job_id": "cafe0001", "state": "running", "num_images": 40, "unfinished": 12}]
    farm.dead_letters = [{"job_id": "cafe0001"}]
    await screen.open(f"#token={TOKEN}")
    await screen.page.get_by_role("button", name="Pause").click()
    await screen.shows("#state", "Paused")
    await screen.page.get_by_role("button", name="Resume").click()
    await screen.shows("#state", "Ready")
    await screen.shows("#jobs", "12 of 40 images left")
    await screen.page.get_by_role("button", name="Cancel job cafe0001").click()
    await screen.shows("#jobs .answer", "Cancelled")
    assert [name for name, _ in farm.acted] == ["pause", "resume", "cancel"]


async def test_a_link_logs_in_once_and_leaves_the_address(screen: Screen, farm: FakeFarm) -> None:
    assert farm.feed is not None
    link = farm.feed.sessions.link()
    await screen.open(f"#login={link}")
    assert screen.page.url == screen.home
    await expect(screen.page.locator("#unlock")).to_have_text("Log out")
    await screen.page.evaluate("sessionStorage.clear()")
    await screen.page.goto(screen.home + "healthz")
    await screen.open(f"#login={link}")
    await screen.shows("#token-error", "This link was used already")


async def test_a_refusal_of_the_farm_is_shown(screen: Screen, farm: FakeFarm) -> None:
    full(farm)
    await screen.open(f"#token={TOKEN}")
    button = screen.page.get_by_role("button", name="Retry image 0 of job a1b2c3d4")
    await expect(button).to_be_visible()
    refused = FakeFarm.act

    async def act(action: Act) -> dict[str, Any]:
        return await refused(farm, replace(action, job_id="ffffffff"))

    assert farm.feed is not None
    farm.feed._actions._action = act
    await button.click()
    await screen.shows(".answer", "There is no job ffffffff.")


async def test_a_token_in_the_fragment_is_taken_and_hidden(screen: Screen) -> None:
    await screen.open(f"#token={TOKEN}")
    assert screen.page.url == screen.home
    await expect(screen.page.locator("#unlock")).to_have_text("Log out")
    await screen.page.reload()
    await expect(screen.page.locator("#unlock")).to_have_text("Log out")
    await screen.page.locator("#unlock").click()
    assert await screen.page.evaluate("sessionStorage.length") == 0


async def test_a_lost_farm_is_said_and_found_again(screen: Screen, farm: FakeFarm) -> None:
    await screen.open()
    farm.job(images=1)
    await screen.shows("#f-saved", str(farm.saved))
    assert farm.feed is not None
    port = farm.feed.port
    await farm.feed.close()
    await screen.shows("#live", "Connection lost")
    await screen.shows("#banner-text", "luna-farm start")
    again = FakeFarm(seed=9)
    feed = await again.serve(port)
    again.event("image_saved", "b", index=0, path="/out/after_the_restart.png", bytes=1, ms=1.0, score=None)
    await screen.page.evaluate("document.getElementById('retry-now').click()")
    await screen.shows("#live", "Live")
    await expect(screen.page.locator("#banner")).to_be_hidden()
    await screen.shows("#results", "after_the_restart.png")
    await feed.close()


async def test_what_happened_during_a_break_is_made_up_for(screen: Screen, farm: FakeFarm) -> None:
    await screen.open()
    farm.job(images=1)
    await screen.shows("#results", "night_0001")
    await screen.page.context.set_offline(True)
    assert farm.feed is not None
    for connection in tuple(farm.feed._connections):
        connection.transport.abort()
    await screen.shows("#live", "Connection lost")
    farm.event("image_saved", "b", index=0, path="/out/meanwhile.png", bytes=1, ms=1.0, score=None)
    await screen.page.context.set_offline(False)
    await screen.shows("#live", "Live")
    await screen.shows("#results", "meanwhile.png")
    for held in farm.feed._history.after(0).frames:  # told again, it is not shown again
        next(iter(farm.feed._subscribers)).push(held)
    farm.event("image_saved", "c", index=0, path="/out/afterwards.png", bytes=1, ms=1.0, score=None)
    await screen.shows("#results", "afterwards.png")
    assert await screen.page.get_by_text("meanwhile.png").count() == 1


async def test_another_user_is_asked_for_the_token(
    screen: Screen, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "PLATFORM_TELLS", True)
    monkeypatch.setattr(system, "peer_uid", lambda sock: None)
    await screen.page.goto(screen.home)
    await screen.shows("#live", "Token needed")
    await screen.page.get_by_label("Token", exact=True).fill(TOKEN)
    await screen.page.keyboard.press("Enter")
    await screen.shows("#live", "Live")


async def test_the_keyboard_is_enough(screen: Screen, farm: FakeFarm) -> None:
    full(farm)
    await screen.open()
    page = screen.page
    await screen.shows("#trouble", "The disk is full.")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#f-failed-sub")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#c-rate svg")).to_be_focused()
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowLeft")
    await screen.shows("#c-rate .chart-value", "2 s ago")
    await page.locator("#unlock").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Token", exact=True)).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#token-dialog")).to_be_hidden()
    await expect(page.locator("#unlock")).to_be_focused()


async def test_the_theme_is_kept(screen: Screen) -> None:
    await screen.open()
    page = screen.page

    async def background() -> str:
        return str(await page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = await background()
    await page.get_by_role("button", name="Theme: system").click()
    assert await background() != dark
    await page.reload()
    await expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert await background() != dark
    await page.get_by_role("button", name="Theme: light").click()
    assert await background() == dark


SIZES = {"desktop": (1280, 900), "phone": (360, 740)}


VIEWS = [("full", size, scheme) for size in SIZES for scheme in ("dark", "light")]
VIEWS += [(state, "phone", scheme) for state in ("dialog", "lost") for scheme in ("dark", "light")]
VIEWS += [("empty", "desktop", "light")]


@pytest.mark.parametrize(("state", "size", "scheme"), VIEWS)
async def test_axe_finds_nothing(
    browser: Browser, farm: FakeFarm, state: str, size: str, scheme: Any
) -> None:
    width, height = SIZES[size]
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    screen = Screen(await context.new_page(), farm)
    if state != "empty":
        full(farm)
    await screen.open()
    await screen.shows("#workers", "4100")
    if state == "dialog":
        await screen.page.locator("#unlock").click()
    if state == "lost":
        assert farm.feed is not None
        await farm.feed.close()
        await screen.shows("#banner-text", "luna-farm start")
    found = await Axe().run(screen.page)
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found.response["violations"]] == []
    assert await screen.page.evaluate("document.documentElement.scrollWidth") <= width
    await context.close()


async def test_a_page_elsewhere_can_neither_read_nor_act(screen: Screen, farm: FakeFarm) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<p>elsewhere")
        writer.close()

    elsewhere = await asyncio.start_server(serve, "127.0.0.1", 0)  # another port is another origin
    await screen.page.goto(f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}/")
    assert farm.feed is not None
    script = """async (port) => {
        const socket = await new Promise((done) => {
            const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
            socket.onopen = () => done("open");
            socket.onerror = () => done("refused");
        });
        const read = await fetch(`http://127.0.0.1:${port}/api/status`).then((answer) => answer.text(), () =>
        "refused"); return [socket, read]; }"""
    assert await screen.page.evaluate(script, farm.feed.port) == ["refused", "refused"]
    elsewhere.close()


async def test_the_browser_example_follows(screen: Screen, farm: FakeFarm) -> None:
    text = EXAMPLE.read_text("utf-8")
    await screen.page.goto(screen.home + "healthz")  # the farm's own address, without the dashboard's policy
    await screen.page.set_content(text)
    farm.event("image_saved", "b", index=0, path="/out/one.png", bytes=7, ms=3.0)
    await screen.shows("#saved", "/out/one.png, 7 bytes in 3 ms")
    assert farm.feed is not None
    for connection in tuple(farm.feed._connections):
        connection.transport.abort()
    farm.event("image_saved", "b", index=1, path="/out/two.png", bytes=7, ms=3.0)
    await screen.shows("#saved li:first-child", "/out/two.png")
    assert await screen.page.locator("#saved li").count() == 2
