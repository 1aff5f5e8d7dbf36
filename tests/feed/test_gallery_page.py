"""The gallery in a real browser: thousands of images, searched, looked at, by mouse, keyboard and phone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fake_farm import TOKEN, FakeFarm
from fake_gallery import FakeGallery
from test_dashboard import CHROMIUM, FLAGS, MISSING, SIZES, Screen

from luna_farm import system, system_desktop
from luna_farm.feed import auth

if not MISSING:
    from axe_playwright_python.async_playwright import Axe
    from playwright.async_api import Browser, Page, async_playwright, expect

COUNT = 2_000
pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(MISSING), reason=f"THE GALLERY IS NOT TESTED: {MISSING}"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def images(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FakeGallery]:
    made = FakeGallery(tmp_path_factory.mktemp("gallery"))
    made.fill(COUNT, files=8, small=400)
    made.fail(1, "The encoder ended its worker twice.")
    yield made
    made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def farm(images: FakeGallery) -> AsyncIterator[FakeFarm]:
    fake = FakeFarm()
    feed = await fake.serve(gallery=images.gallery())
    yield fake
    await feed.close()


@pytest_asyncio.fixture(loop_scope="module")
async def screen(browser: Browser, farm: FakeFarm) -> AsyncIterator[Screen]:
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield Screen(await context.new_page(), farm)
    await context.close()


async def opened(screen: Screen, query: str = "") -> Page:
    await screen.page.goto(f"{screen.home}gallery{query}")
    await expect(screen.page.locator(".shot img.here").first).to_be_visible()
    return screen.page


async def test_it_shows_all_images_by_day_and_makes_tiles_for_a_few(screen: Screen) -> None:
    page = await opened(screen)
    await screen.shows("#count", "2,000 images")
    await screen.shows("#grid h2 >> nth=0", "Today")
    assert await page.locator(".shot").count() < 100
    await page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    await expect(page.locator(".shot button[title]:not([title=''])").first).to_be_visible()
    await expect(page.locator("#day")).not_to_be_empty()
    await page.keyboard.press("End")
    await expect(page.locator("[aria-posinset='2000']")).to_be_visible()
    assert await page.locator(".shot").count() < 100
    assert screen.complaints == []


async def test_words_filters_and_their_address(screen: Screen) -> None:
    page = await opened(screen)
    await page.locator("#words").fill("lighthouse oil")
    await expect(page.locator("#count")).to_have_text(re.compile(r"^[1-9]\d{1,2} images"))
    of_words = await page.locator("#count").text_content() or ""
    assert page.url.endswith("/gallery?words=lighthouse+oil")
    await page.locator("#model").fill("flux")
    await expect(page).to_have_url(re.compile("model=flux"))
    await expect(page.locator("#count")).not_to_have_text(of_words)
    await expect(page.locator("#count")).to_have_text(re.compile(r"^\d{1,2} images"))
    few = await page.locator("#count").text_content()
    await page.reload()
    await expect(page.locator("#count")).to_have_text(few or "")
    await expect(page.locator("#model")).to_have_value("flux")
    await page.get_by_role("button", name="Clear").click()
    await screen.shows("#count", "2,000 images")
    await page.locator("#to").fill("2001-02-03")
    await screen.shows("#none-title", "Nothing matches")
    await page.locator("#to").fill("")
    await page.locator("#words").fill('"lighthouse oil on')
    await screen.shows("#none-text", 'The quote in "lighthouse oil on is not closed')
    await page.locator("#words").fill("")
    await page.locator("#state").select_option("failed")
    await screen.shows("#count", "1 image")
    await expect(page.locator(".shot.failed .badge")).to_have_text("failed")


async def test_a_condition_that_cannot_be_read_is_said(screen: Screen) -> None:
    page = await opened(screen)
    await page.locator("#score").fill("beauty>3")
    await screen.shows("#problem", "score: 'beauty>3' is not allowed")
    await page.locator("#score").fill("gate<0.3")
    await expect(page.locator("#problem")).to_be_hidden()
    await expect(page.locator(".shot .badge").first).to_have_text("rejected")


async def test_one_image_large_with_what_is_known_of_it(screen: Screen, images: FakeGallery) -> None:
    page = await opened(screen)
    await page.locator(".shot button").nth(1).click()
    await screen.shows("#preview-name", "night_001998")
    await screen.shows("#preview-path", str(images.out))
    await expect(page.locator("#preview-image")).to_have_attribute("src", re.compile("^blob:"))
    seed = images.row(COUNT - 2, 0.0, file=False).seed
    await screen.shows("#preview-facts", str(seed))
    await screen.shows("#preview-facts", "dpmpp_2m, karras, 28 steps, CFG 5.5")
    await page.keyboard.press("ArrowRight")
    await screen.shows("#preview-name", "night_001997")
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowLeft")
    await screen.shows("#preview-name", "night_001999")
    await expect(page.locator("#previous")).to_be_disabled()
    await screen.shows("#preview-facts", "Prompt")
    await page.keyboard.press("c")
    await expect(page.locator("#copy-prompt")).to_have_text("Copied")
    assert "wide angle" in str(await page.evaluate("navigator.clipboard.readText()"))
    await page.keyboard.press("p")
    await expect(page.locator("#copy-path")).to_have_text("Copied")
    assert str(await page.evaluate("navigator.clipboard.readText()")).startswith(str(images.out))
    async with page.expect_download() as download:
        await page.keyboard.press("d")
    assert Path(await (await download.value).path()).read_bytes()[:4] == b"\x89PNG"
    await page.keyboard.press("Escape")
    await expect(page.locator("#preview")).to_be_hidden()
    await expect(page.locator("[aria-posinset='1'] button")).to_be_focused()
    assert screen.complaints == []


async def test_a_file_that_is_back_is_shown_with_the_next_look(screen: Screen, images: FakeGallery) -> None:
    page = await opened(screen)
    (file,) = images.out.glob("night_001998_*.png")
    away = file.rename(file.with_suffix(".away"))
    await page.locator(".shot button").nth(1).click()
    await screen.shows("#preview-note", "cannot be read")
    await page.keyboard.press("Escape")
    away.rename(file)
    await page.locator(".shot button").nth(1).click()
    await expect(page.locator("#preview-image")).to_have_attribute("src", re.compile("^blob:"))


async def test_an_image_has_an_address_and_back_closes_it(screen: Screen) -> None:
    page = await opened(screen)
    await page.locator(".shot button").first.click()
    await expect(page).to_have_url(re.compile(r"image=\d+"))
    address = page.url
    await page.go_back()
    await expect(page.locator("#preview")).to_be_hidden()
    await page.goto(address)
    await screen.shows("#preview-name", "night_001999")


async def test_what_is_known_of_an_image_finds_others(screen: Screen) -> None:
    page = await opened(screen)
    await page.locator(".shot button").first.click()
    await page.locator("#preview-facts dt:has-text('Job') + dd button").click()
    await screen.shows("#count", "2 images")
    await expect(page.locator("#job")).to_have_value(re.compile("^[0-9a-f]{8}$"))
    await page.locator(".shot button").first.click()
    await page.get_by_role("button", name="find near duplicates").click()
    await screen.shows("#count", "the most alike first")


async def test_a_key_right_after_the_preview_is_closed_is_not_undone(screen: Screen) -> None:
    page = await opened(screen)
    await page.locator("[aria-posinset='3'] button").click()
    await expect(page.locator("#preview")).to_be_visible()
    # The browser tells of the closed dialog later: what it tells must not move the keyboard.
    await page.evaluate("""async () => {
        const preview = document.querySelector("#preview");
        const told = new Promise((done) => preview.addEventListener("close", done));
        document.querySelector("#preview-close").click();
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
        await told;
        await new Promise(requestAnimationFrame);
    }""")
    await expect(page.locator("[aria-posinset='1'] button")).to_be_focused()


async def test_the_keyboard_is_enough(screen: Screen) -> None:
    page = await opened(screen)
    await page.keyboard.press("/")
    await expect(page.locator("#words")).to_be_focused()
    await page.locator("[tabindex='0']", has=page.locator("img")).first.focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowRight")
    columns = int(await page.evaluate("Math.round(innerWidth / document.querySelector('.shot').offsetWidth)"))
    focused = int(str(await page.evaluate("document.activeElement.parentElement.ariaPosInSet")))
    assert focused in (columns + 1, columns + 2)
    await page.keyboard.press("Enter")
    await expect(page.locator("#preview")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator(f"[aria-posinset='{focused}'] button")).to_be_focused()
    await page.keyboard.press("Home")
    await expect(page.locator("[aria-posinset='1'] button")).to_be_focused()


async def test_a_folder_is_opened_for_who_logged_in(
    screen: Screen, images: FakeGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Path] = []
    monkeypatch.setattr(system_desktop, "open_path", shown.append)
    page = await opened(screen)
    await page.locator(".shot button").first.click()
    await page.get_by_role("button", name="Open folder").click()
    await page.get_by_label("Token", exact=True).fill(TOKEN)
    await page.keyboard.press("Enter")
    await screen.shows("#say", f"Opened {images.out}")
    assert shown == [images.out]


async def test_an_image_that_is_saved_now_appears(
    screen: Screen, farm: FakeFarm, images: FakeGallery
) -> None:
    page = await opened(screen)
    await screen.shows("#live", "Live")
    images.store.put([images.row(900_000, images.now + 60, file=False)])
    farm.event("image_saved", "b", index=0, path="/out/new.png", bytes=1, ms=1.0, score=None)
    await screen.shows("#count", "2,001 images")
    images.store.remove_image(*images.key(900_000))
    await page.evaluate("scrollTo(0, 3000)")
    farm.event("image_saved", "b", index=1, path="/out/new.png", bytes=1, ms=1.0, score=None)
    await page.get_by_role("button", name="1 new").click()
    await screen.shows("#count", "2,000 images")


async def test_another_user_sees_nothing_without_the_token(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "PLATFORM_TELLS", True)
    monkeypatch.setattr(system, "peer_uid", lambda sock: None)
    await screen.page.goto(f"{screen.home}gallery")
    await expect(screen.page.locator("#token-dialog")).to_be_visible()
    assert await screen.page.locator(".shot").count() == 0
    await screen.page.get_by_label("Token", exact=True).fill(TOKEN)
    await screen.page.keyboard.press("Enter")
    await screen.shows("#count", "2,000 images")
    await expect(screen.page.locator(".shot img.here").first).to_be_visible()


async def test_a_farm_without_a_catalogue_says_so(browser: Browser) -> None:
    fake = FakeFarm()
    feed = await fake.serve()
    screen = Screen(await browser.new_page(), fake)
    await screen.page.goto(f"{screen.home}gallery")
    await screen.shows("#problem", "keeps no catalogue")
    await screen.page.close()
    await feed.close()


async def test_it_is_light(screen: Screen) -> None:
    sizes: list[int] = []
    screen.page.on("response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0))))
    await screen.page.goto(f"{screen.home}gallery?words=nothing-has-this-word")
    await screen.shows("#none-title", "Nothing matches")
    assert 20_000 < sum(sizes) < 120_000


VIEWS = [
    ("grid", "desktop", "dark"),
    ("grid", "phone", "light"),
    ("preview", "desktop", "light"),
    ("preview", "phone", "dark"),
    ("empty", "phone", "light"),
]


@pytest.mark.parametrize(("state", "size", "scheme"), VIEWS)
async def test_axe_finds_nothing(
    browser: Browser, farm: FakeFarm, state: str, size: str, scheme: Any
) -> None:
    width, height = SIZES[size]
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    screen = Screen(await context.new_page(), farm)
    if state == "empty":
        await screen.page.goto(f"{screen.home}gallery?words=nothing-has-this-word")
        await screen.shows("#none-title", "Nothing matches")
    else:
        await opened(screen)
    if size == "phone" and state == "grid":
        await screen.page.locator("#filters-toggle").click()
    if state == "preview":
        await screen.page.locator(".shot button").first.click()
        await screen.shows("#preview-facts", "Prompt")
        await expect(screen.page.locator("#preview-image")).to_have_attribute("src", re.compile("^blob:"))
    found = await Axe().run(screen.page)
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found.response["violations"]] == []
    assert await screen.page.evaluate("document.documentElement.scrollWidth") <= width
    await context.close()
