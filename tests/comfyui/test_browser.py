"""The real frontend in headless Chromium: previews, trouble on the node, and dropping saved files.

Every test runs twice: with nodes drawn on the canvas, and with Vue nodes (Nodes 2.0).
Needs Playwright for Python and a Chromium (scripts/comfyui_tests.py sees to the first). Screenshots go to the
folder that LUNA_FARM_TEST_SHOTS names, for a person to look at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright for Python is missing: python3 scripts/comfyui_tests.py brings it",
)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium, or set CHROMIUM"
    ),
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = os.environ.get("LUNA_FARM_TEST_SHOTS")
WAIT_MS = 180_000

# Builds "load a picture, save it" and keeps the saver as window.saver. Ids count on: some frontends give a
# new node the values and the images that an earlier one of its id had.
BUILD = """([type, widgets]) => {
  const last = app.graph.last_node_id;
  app.graph.clear();
  app.graph.last_node_id = last;
  const load = LiteGraph.createNode("LoadImage");
  const saver = LiteGraph.createNode(type);
  load.pos = [60, 90]; saver.pos = [420, 90];
  app.graph.add(load); app.graph.add(saver);
  saver.title = "Speichern ü 月";
  for (const [name, value] of Object.entries(widgets)) {
    const named = (one) => one.name === name;
    (saver.widgets.find(named) ?? load.widgets.find(named)).value = value;
  }
  window.input = (name) => saver.inputs.findIndex((one) => one.name === name);
  load.connect(0, saver, input("image_1"));
  saver.setSize([320, saver.size[1]]);
  Object.assign(app.canvas.ds, { scale: 1, offset: [20, 60] }); // left of the toasts
  window.saver = saver;
}"""
# The images that a person sees on the node, loaded. Older Vue nodes show one at a time.
SEEN = """() => {
  const vue = [...document.querySelectorAll(`[data-node-id="${saver.id}"] img`)];
  const images = LiteGraph.vueNodesMode ? vue : saver.imgs ?? [];
  const loaded = images.length && images.every((one) => one.complete && one.naturalWidth > 0);
  return loaded ? images.map((one) => new URL(one.src).searchParams.get("filename")) : [];
}"""
PREVIEW = f"({SEEN})().length"
# What ComfyUI knows as the node's images.
OUTPUTS = "(app.nodeOutputs[saver.id]?.images ?? []).map((one) => one.filename)"
# The node was drawn anew with room for its picture: the margin beside that has the colour of the node.
ROOM = """() => {
  if (LiteGraph.vueNodesMode) return true; // no canvas to draw
  const { canvas, ds: { scale, offset } } = app.canvas;
  const colour = (y) => String(canvas.getContext("2d").getImageData(
    (saver.pos[0] + 5 + offset[0]) * scale, (saver.pos[1] + y + offset[1]) * scale, 1, 1).data);
  return colour(saver.size[1] - 20) === colour(20);
}"""
LINE = "saver.lunaLine.textContent"
# How tall the node is: a Vue node measures itself.
HEIGHT = """() => {
  if (!LiteGraph.vueNodesMode) return saver.size[1];
  const { height } = document.querySelector(`[data-node-id="${saver.id}"]`).getBoundingClientRect();
  return height / app.canvas.ds.scale;
}"""
# PrimeVue's toasts, and those of the frontends after it.
TOAST = ".p-toast-message, li[data-state=open]"
# The texts of all toasts so far: they go by themselves after some seconds.
NOTE_TOASTS = f"""
window.toasts = new Set();
new MutationObserver(() => {{
  for (const {{ textContent }} of document.querySelectorAll('{TOAST}')) toasts.add(textContent);
}}).observe(document, {{ childList: true, subtree: true, characterData: true }});
"""
CLOSE_TOASTS = (
    f"""document.querySelectorAll('{TOAST}').forEach((one) => one.querySelector('button')?.click())"""
)
# What holds all nodes, with some room around them.
NODES = """() => {
  const { ds: { scale, offset }, canvas } = app.canvas;
  const { x, y } = canvas.getBoundingClientRect();
  const nodes = app.graph._nodes;
  const [left, top] = [0, 1].map((at) => Math.min(...nodes.map(({ pos }) => pos[at])));
  const [right, bottom] = [0, 1].map((at) => Math.max(...nodes.map(({ pos, size }) => pos[at] + size[at])));
  return {
    x: x + (left - 20 + offset[0]) * scale, y: y + (top - 60 + offset[1]) * scale,
    width: (right - left + 40) * scale, height: (bottom - top + 80) * scale,
  };
}"""
# The same, with the toasts beside them.
NODES_AND_TOASTS = f"""() => {{
  const {{ x, y, height }} = ({NODES})();
  return {{ x, y: 40, width: innerWidth - x, height: y + height - 40 }};
}}"""
ROOM_OF_AN_IMAGE = 100
"""Pixels; the lines of a reason take less."""
# ComfyUI lays a curtain over the page while it starts and while it opens a file.
NO_CURTAIN = "!document.querySelector('.p-blockui-mask, #splash-loader')"
DROP_AT = {"x": 500, "y": 1000}
"""Left of the toasts and of the small map."""
MODES = {"canvas": False, "vue": True}
PROMPTS = int(os.environ.get("LUNA_FARM_TEST_PROMPTS", "12"))


class Browser:
    """One page on a ComfyUI, and what it asked the server for."""

    def __init__(self, page: Any, comfy: Any, mode: str) -> None:
        self.page, self.comfy, self.mode = page, comfy, mode
        self.views: list[tuple[int, str]] = []
        self.words: list[str] = []
        page.on("console", lambda said: self.words.append(f"{said.type}: {said.text}"))
        page.on("response", lambda r: self.views.append((r.status, r.url)) if "/view?" in r.url else None)
        page.add_init_script(NOTE_TOASTS)
        page.goto(comfy.url)
        self.loaded()

    def loaded(self) -> None:
        """Wait until the page knows the nodes and shows no curtain any more."""
        self.until("window.app?.graph && app.extensionManager && !!LiteGraph.registered_node_types.LoadImage")
        self.until(NO_CURTAIN)
        self.until("app.api.clientId && app.api.socket?.readyState === WebSocket.OPEN")

    def build(self, node: str = "LunaDaemonImageSaver", **widgets: Any) -> None:
        self.views.clear()
        self.until(f"{CLOSE_TOASTS} ?? !document.querySelector('{TOAST}')")
        self.page.evaluate("toasts.clear()")
        self.page.evaluate(BUILD, [node, {"image": "picture.png", "save_path": self.mode, **widgets}])

    def queue(self) -> None:
        self.page.evaluate("app.queuePrompt(0)")

    def until(self, script: str) -> None:
        try:
            self.page.wait_for_function(script, timeout=WAIT_MS)
        except sync_api.TimeoutError:
            self.shot("timeout")
            raise

    def toast(self, text: str) -> None:
        self.until(f"[...toasts].some((one) => one.includes({json.dumps(text)}))")

    def badge(self, text: str) -> None:
        """Wait until the node has a badge that begins like this, "" for none: ComfyUI's own on the canvas, in
        a Vue node the line with a background."""
        vue = "saver.lunaLine.style.background ? saver.lunaLine.textContent : ''"
        canvas = "saver.badges.at(-1)().text"
        shown = f"(LiteGraph.vueNodesMode ? {vue} : {canvas})"
        self.until(f"{shown}.startsWith('{text}') && !!{shown} === {str(bool(text)).lower()}")

    def seen(self) -> list[str]:
        return list(self.page.evaluate(SEEN))

    def sees(self, names: list[str]) -> None:
        """Wait until the node shows these images: all, or in older Vue nodes the first of so many."""
        dots = f"""document.querySelectorAll('[aria-label$=" of {len(names)}"]').length"""
        paged = f"({dots} === {len(names)} && String(({SEEN})()) === '{names[0]}')"
        self.until(f"String(({SEEN})()) === '{','.join(names)}' || {paged}")

    def shot(self, name: str, where: str = "undefined") -> None:
        """Keep a screenshot of the page, or of a rectangle of it that a script returns."""
        if SHOTS:
            self.page.wait_for_timeout(800)  # animations of toasts; only when a person wants to look
            path = Path(SHOTS) / f"{name}-{self.mode}.png"
            self.page.screenshot(path=str(path), clip=self.page.evaluate(where))

    def drop(self, path: Path) -> None:
        """Drop a file on the empty canvas, as the operating system does. What lies over the canvas would take
        it: the curtain of a file that was dropped before, for one."""
        self.until(f"document.elementFromPoint({DROP_AT['x']}, {DROP_AT['y']}) === app.canvas.canvas")
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, **DROP_AT, "data": data})
        session.detach()

    def opens(self, path: Path) -> None:
        """Drop a file on a canvas without nodes, and wait until the workflow of `build` is open from it."""
        self.page.evaluate("app.graph.clear()")
        self.drop(path)
        self.until(f"app.graph._nodes.some((node) => node.title === 'Speichern ü 月') && {NO_CURTAIN}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=MODES)
def page(request: pytest.FixtureRequest, chromium: Any, comfy: Any) -> Iterator[Browser]:
    comfy.post("/settings/Comfy.VueNodes.Enabled", MODES[request.param])
    context = chromium.new_context(viewport={"width": 1200, "height": 1300})
    context.set_default_timeout(WAIT_MS)
    yield Browser(context.new_page(), comfy, request.param)
    context.close()


@pytest.fixture
def browser(page: Browser, running: Any) -> Browser:
    """The page of all tests here, with a farm behind it."""
    return page


@pytest.fixture
def held(running: Any) -> Iterator[Any]:
    """The farm saves nothing until `held()` lets it go on."""
    with running.paused() as go_on:
        yield go_on


def test_the_preview_appears_when_the_file_is_there_and_no_broken_picture_before(browser, held):
    browser.build(filename="preview")
    browser.queue()
    browser.until(f"{LINE}.startsWith('Saving 1')")
    browser.shot("saving")
    assert browser.seen() == []
    assert [url for _, url in browser.views if "preview_RAW" in url] == [], "nothing may be asked for yet"
    held()
    browser.until(PREVIEW)
    assert browser.page.evaluate(LINE) == "1 saved"
    assert {status for status, url in browser.views if "preview_RAW" in url} == {200}
    browser.until(ROOM)
    browser.shot("saved")


def test_an_image_counts_once_also_when_it_comes_from_the_cache(browser):
    browser.build(filename="cached")
    for _ in range(2):
        browser.queue()
        browser.until("app.ui.lastQueueSize === 0")
        browser.until(f"String(({SEEN})()) === 'cached_RAW.png'")
    assert browser.page.evaluate(LINE) == "1 saved"


@pytest.fixture
def polled(browser: Browser) -> Iterator[None]:
    """The server is kept busy: its thread serialises the nodes' messages later than they were sent."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            browser.comfy.get("/object_info")

    threads = [threading.Thread(target=poll) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


# Notes what the node shows after each message that could change it.
NOTE = """() => {
  window.noted = [];
  window.noting ??= app.api.addEventListener("executed", () => window.noted.push(names())) ?? true;
  window.names = () => (app.nodeOutputs[saver.id]?.images ?? []).map((one) => one.filename);
}"""


def queue_numbered(browser: Browser, name: str, prompts: range) -> None:
    script = "async ([name]) => { widget('filename').value = name; await app.queuePrompt(0); }"
    browser.page.evaluate("window.widget = (name) => saver.widgets.find((one) => one.name === name)")
    for number in prompts:
        browser.page.evaluate(script, [f"{name}{number:03}"])


@pytest.mark.parametrize("lag", [False, True], ids=["quick-farm", "lagging-farm"])
def test_previews_of_many_prompts_are_never_doubled_missing_or_mixed(lag, browser, polled, running):
    name = f"many{lag}"
    browser.build(filename=name)
    browser.page.evaluate(NOTE)
    with running.paused() if lag else nullcontext():
        queue_numbered(browser, name, range(PROMPTS))
        if lag:
            browser.until(f"{LINE}.includes('queue {PROMPTS}')")
    last = f"{name}{PROMPTS - 1:03}_RAW.png"
    browser.until(f"String(({SEEN})()) === '{last}' && {LINE} === '1 saved'")
    noted = browser.page.evaluate("noted")
    assert max(map(len, noted)) == 1, noted
    shown = [names[0] for names in noted if names]
    assert shown == sorted(shown), "an older image never replaces a newer one"
    assert [] not in noted[noted.index([shown[0]]) :], "the node keeps an image until the next is there"


FRAMES = "async () => { for (let i = 0; i < 5; i++) await new Promise(requestAnimationFrame); }"


def test_an_older_image_that_loads_last_is_not_shown(browser):
    browser.build(filename="slow")
    old = re.compile("slow_old_RAW")
    held: list[Any] = []
    open_requests: set[Any] = set()  # more than one: the frontend asks again after 8 s

    def asked(request: Any) -> None:
        if old.search(request.url):
            open_requests.add(request)

    def over(request: Any) -> None:
        open_requests.discard(request)

    events = {"request": asked, "requestfinished": over, "requestfailed": over}
    for event, listener in events.items():
        browser.page.on(event, listener)
    browser.page.route(old, lambda route: held.append(route))
    browser.page.evaluate("window.widget = (name) => saver.widgets.find((one) => one.name === name)")
    with browser.page.expect_request(old):
        browser.page.evaluate("() => { widget('filename').value = 'slow_old'; app.queuePrompt(0); }")
    browser.page.evaluate("() => { widget('filename').value = 'slow_new'; app.queuePrompt(0); }")
    browser.until(f"String(({SEEN})()) === 'slow_new_RAW.png'")
    while open_requests:
        while held:
            held.pop().continue_()
        browser.page.evaluate(FRAMES)
    browser.until(f"String(({SEEN})()) === 'slow_new_RAW.png'")
    browser.page.unroute(old)
    for event, listener in events.items():
        browser.page.remove_listener(event, listener)


def test_a_list_of_images_is_one_result(browser):
    browser.build(filename="list")
    browser.page.evaluate("""() => {
      const load = app.graph._nodes.find((one) => one.type === "LoadImage");
      const make = (type) => LiteGraph.createNode(type);
      const [repeat, rebatch] = ["RepeatImageBatch", "RebatchImages"].map(make);
      app.graph.add(repeat);
      app.graph.add(rebatch);
      repeat.widgets.find(({ name }) => name === "amount").value = 3;
      load.connect(0, repeat, 0); repeat.connect(0, rebatch, 0); rebatch.connect(0, saver, input("image_1"));
    }""")
    browser.queue()
    browser.until(f"{LINE} === '3 saved'")
    browser.until(PREVIEW)
    assert len(set(browser.page.evaluate(OUTPUTS))) == 3


def test_a_reloaded_page_shows_what_ends_after_it(browser, held):
    browser.build(filename="reloaded")
    graph = browser.page.evaluate("app.graph.serialize()")
    browser.queue()
    browser.until(f"{LINE}.startsWith('Saving 1')")
    browser.page.reload()
    browser.loaded()
    browser.page.evaluate("async (graph) => { await app.loadGraphData(graph) }", graph)
    browser.page.evaluate("() => { [window.saver] = app.graph.findNodesByType('LunaDaemonImageSaver'); }")
    browser.until(f"{LINE}.startsWith('Saving 1')")
    held()
    browser.until(f"String(({SEEN})()) === 'reloaded_RAW.png' && {LINE} === '1 saved'")


def reopen(browser: Browser, graph: dict[str, Any]) -> None:
    browser.page.evaluate("async (graph) => { await app.loadGraphData(graph) }", graph)
    browser.page.evaluate("() => { [window.saver] = app.graph.findNodesByType('LunaDaemonImageSaver'); }")


def test_a_workflow_that_is_opened_again_shows_what_ended_meanwhile(browser, held):
    browser.build(filename="meanwhile")
    browser.page.evaluate("app.graph.id = crypto.randomUUID()")
    graph = browser.page.evaluate("app.graph.serialize()")
    other = {**graph, "id": browser.page.evaluate("crypto.randomUUID()")}
    browser.queue()
    browser.until(f"{LINE}.startsWith('Saving 1')")
    reopen(browser, other)  # nodes of the same ids
    browser.page.evaluate("""() => {
      window.ended = false;
      app.api.addEventListener("luna_farm.job", () => { window.ended = true; });
    }""")
    held()
    browser.until("ended")
    browser.page.evaluate(FRAMES)
    assert browser.page.evaluate(LINE) == "No images yet", "it is another workflow"
    assert browser.seen() == []
    reopen(browser, graph)
    browser.until(f"String(({SEEN})()) === 'meanwhile_RAW.png' && {LINE} === '1 saved'")


def test_a_change_that_is_taken_back_leaves_the_last_result(browser):
    """The frontend loads the graph again to undo a change."""
    browser.build(filename="undone")
    browser.page.evaluate("app.graph.id = crypto.randomUUID()")
    graph = browser.page.evaluate("app.graph.serialize()")
    browser.queue()
    browser.until(f"{LINE} === '1 saved'")
    reopen(browser, graph)
    browser.until(f"{LINE} === '1 saved'")


def test_the_line_on_the_node_is_no_part_of_prompt_or_workflow(browser):
    browser.build()
    prompt = browser.page.evaluate("async () => (await app.graphToPrompt()).output")
    assert not [name for node in prompt.values() for name in node["inputs"] if "luna" in name]
    values = browser.page.evaluate("saver.serialize().widgets_values")
    inputs = browser.comfy.get("/object_info/LunaDaemonImageSaver")["LunaDaemonImageSaver"]["input"]
    kinds = [spec[0] for group in ("required", "optional") for spec in inputs[group].values()]
    assert len(values) == len(
        [kind for kind in kinds if kind not in ("IMAGE", "MASK", "METADATA", "LUNA_IMAGES")]
    )


def test_widgets_of_images_that_are_not_connected_are_out_of_the_way(browser):
    browser.build()
    hidden = "saver.widgets.filter((one) => one.hidden).map((one) => one.name)"
    assert "affix_2" in browser.page.evaluate(hidden)
    height = browser.page.evaluate("saver.size[1]")
    browser.page.evaluate("app.graph.findNodesByType('LoadImage')[0].connect(0, saver, input('image_2'))")
    assert "affix_2" not in browser.page.evaluate(hidden)
    if browser.mode == "canvas":  # a Vue node measures itself, in 1.27.10 with what is hidden
        assert browser.page.evaluate("saver.size[1]") > height


def test_advanced_widgets_are_out_of_the_way_until_they_are_wanted_or_connected(browser):
    browser.build()
    row = "saver.widgets.find((one) => one.name === 'png_compression')"
    shows = f"(saver.isWidgetRowVisible?.({row}) ?? saver.isWidgetVisible({row}))"
    if browser.mode == "canvas":  # a Vue node has a button of its own for that
        browser.until(f"!{shows}")
        height = browser.page.evaluate("saver.size[1]")
        browser.page.evaluate("saver.toggleAdvanced()")
        browser.until(f"{shows} && saver.size[1] > {height}")
        height = browser.page.evaluate("saver.size[1]")
        browser.page.evaluate("saver.toggleAdvanced()")
        browser.until(f"!{shows} && saver.size[1] < {height}")
    browser.page.evaluate("""() => {
      const number = LiteGraph.createNode("PrimitiveInt");
      app.graph.add(number);
      number.connect(0, saver, input("png_compression"));
    }""")
    browser.until(shows)


def test_a_rejection_shows_on_the_node_with_its_reason(browser):
    browser.build(filename="flat", image="flat.png", quality_gate="variance")
    browser.page.evaluate("saver.title = 'Luna Daemon Image Saver'")
    browser.queue()
    browser.until(f"{LINE}.includes('1 rejected')")
    browser.until(PREVIEW)
    browser.badge("1 rejected")
    browser.toast("flat_RAW.png: quality 0.000 is below 0.300")
    browser.shot("rejected", NODES_AND_TOASTS)


def test_a_refused_handover_shows_on_the_node(browser, farm):
    browser.build(filename="accepted")
    browser.page.evaluate("saver.title = 'Luna Daemon Image Saver'")
    without = browser.page.evaluate(HEIGHT)
    browser.queue()
    browser.until(PREVIEW)
    browser.until(f"({HEIGHT})() > {without} + {ROOM_OF_AN_IMAGE}")
    farm.stop()
    browser.page.evaluate("saver.widgets.find(({ name }) => name === 'filename').value = 'refused'")
    browser.queue()
    sentence = "Connection refused. Is daemon running? Start the farm: luna-farm start --detach"
    browser.until(f"{LINE}.startsWith('Not taken over · {sentence}')")
    browser.toast(sentence)
    browser.until(f"!{PREVIEW}")  # no image of an earlier run …
    browser.until(f"({HEIGHT})() < {without} + {ROOM_OF_AN_IMAGE}")  # … and no room of one
    browser.shot("refused", NODES_AND_TOASTS)
    farm.start()
    browser.queue()
    browser.until(f"{LINE} === '1 saved'")
    browser.badge("")


@pytest.mark.parametrize(
    ("format_1", "widgets"),
    [
        ("png", {}),
        ("webp", {}),
        ("webp", {"lossless_webp": True}),
        ("jpeg", {}),
        ("avif", {}),
        ("tiff", {}),
        ("jxl", {}),
    ],
    ids=["png", "webp", "webp-lossless", "jpeg", "avif", "tiff", "jxl"],
)
def test_a_dropped_file_opens_its_workflow(format_1, widgets, browser, request):
    offered = browser.comfy.get("/object_info/LunaDaemonImageSaver")["LunaDaemonImageSaver"]
    if format_1 not in offered["input"]["optional"]["format_1"][0]:
        pytest.skip(f"ComfyUI's Python cannot write {format_1}: install the extra [formats] there")
    name = f"drop_{request.node.callspec.id}"
    browser.build(filename=name, format_1=format_1, **widgets)
    browser.queue()
    browser.until(f"{LINE} === '1 saved'")
    (path,) = (browser.comfy.base / "output" / browser.mode / "RAW").glob(f"{name}_RAW.*")
    browser.opens(path)
    values = browser.page.evaluate(
        "app.graph._nodes.find((n) => n.title === 'Speichern ü 月').widgets_values"
    )
    assert name in values
    if format_1 == "jpeg":
        browser.shot("dropped-jpeg")


def test_a_workflow_too_large_for_a_jpeg_opens_from_the_file_beside_it(browser, running):
    from luna_farm_client import SaveImage, SaveRequest

    browser.build(filename="x")
    graph = browser.page.evaluate("app.graph.serialize()")
    graph["extra"] = {"padding": "x" * 90_000}
    picture = SaveImage(np.zeros((8, 8, 3), np.uint8), format="jpeg")
    where = browser.comfy.base / "output" / "large" / browser.mode
    with running.client() as farm:
        request = SaveRequest(
            [picture], output_dir=where, filename="large", extra_pnginfo={"workflow": graph}
        )
        report = farm.wait(farm.submit(request).job_id, 30)
    assert report.images[0].warnings, "the report says so"
    browser.opens(Path(report.images[0].path).with_suffix(".json"))


def test_files_of_others_still_go_to_comfyui(browser, tmp_path):
    """A workflow file of ComfyUI, and a JPEG that holds nothing."""
    from PIL import Image

    browser.build(filename="x")
    graph = tmp_path / "graph.json"
    graph.write_text(browser.page.evaluate("JSON.stringify(app.graph.serialize())"))
    browser.opens(graph)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    browser.page.evaluate("app.graph.clear()")
    browser.drop(tmp_path / "plain.jpg")
    # Newer frontends make a node that loads it, older ones say that it holds no workflow.
    told = "[...toasts].some((one) => one.includes('plain.jpg'))"
    browser.until(f"{told} || app.graph._nodes.some((node) => node.type === 'LoadImage')")


def test_sixty_of_sixty_webp_files_load_in_the_real_frontend(browser, running):
    """Sizes of all parities: a chunk of odd length before EXIF made about half of such files lose their
    workflow."""
    from luna_farm_client import SaveImage, SaveRequest

    browser.build()
    graph = browser.page.evaluate("app.graph.serialize()")
    chance = np.random.default_rng(60)
    where = browser.comfy.base / "output" / "webp" / browser.mode
    kinds = {"lossy-alpha": (4, False), "lossless-rgb": (3, True), "lossless-alpha": (4, True)}
    loaded = dict.fromkeys(kinds, 0)
    with running.client() as farm:
        for kind, (channels, lossless) in kinds.items():
            for number in range(20):
                height, width = (int(side) for side in chance.integers(17, 90, 2))
                pixels = chance.integers(0, 256, (height, width, channels), np.uint8)
                graph["extra"] = {"marker": f"{kind} {number}"}
                receipt = farm.submit(SaveRequest(
                    [SaveImage(pixels, format="webp")], output_dir=where, filename=f"{kind}{number}",
                    lossless_webp=lossless, extra_pnginfo={"workflow": graph},
                ))  # fmt: skip
                assert farm.wait(receipt.job_id, 30).state == "done"
                picture = {
                    "filename": Path(receipt.paths[0]).name,
                    "subfolder": f"webp/{browser.mode}",
                    "type": "output",
                }
                loaded[kind] += browser.page.evaluate(LOADED, [picture, f"{kind} {number}"])
    assert loaded == dict.fromkeys(kinds, 20)


LOADED = """async ([picture, marker]) => {
  const answer = await fetch(`/view?${new URLSearchParams(picture)}`);
  const file = new File([await answer.blob()], picture.filename, { type: "image/webp" });
  await app.handleFile(file);
  for (let i = 0; i < 50 && app.graph.extra?.marker !== marker; i++) {
    await new Promise((go) => setTimeout(go, 20));
  }
  return app.graph.extra?.marker === marker ? 1 : 0;
}"""


def test_an_image_may_pass_through_and_go_on_to_another_node(browser):
    browser.build(filename="through")
    browser.page.evaluate("""() => {
      const next = LiteGraph.createNode("PreviewImage");
      app.graph.add(next);
      const at = saver.outputs.findIndex(({ name }) => name === "image_1");
      saver.connect(at, next, 0);
      window.next = next;
    }""")
    browser.queue()
    browser.until(f"{LINE} === '1 saved' && app.nodeOutputs[next.id]?.images?.length === 1")


def test_a_bypassed_saver_passes_its_images_on(browser):
    browser.build(filename="bypassed")
    browser.page.evaluate("""() => {
      const [load] = app.graph.findNodesByType("LoadImage");
      load.connect(0, saver, input("image_5"));
      window.next = [1, 5].map((number) => {
        const node = LiteGraph.createNode("PreviewImage");
        app.graph.add(node);
        saver.connect(saver.outputs.findIndex(({ name }) => name === `image_${number}`), node, 0);
        return node;
      });
      saver.mode = 4; // bypassed
    }""")
    browser.queue()
    browser.until("next.every(({ id }) => app.nodeOutputs[id]?.images?.length === 1)")


def test_two_images_of_two_formats_and_a_barrier_behind_them(browser):
    browser.build(image="astronaut.png", save_path="barrier", filename=f"astronaut_{browser.mode}")
    browser.page.evaluate("""() => {
      const make = (type, pos, size) => {
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        Object.assign(node, { pos });
        if (size) node.setSize(size);
        return node;
      };
      const [load] = app.graph.findNodesByType("LoadImage");
      load.pos = [40, 90];
      load.setSize([240, 300]);
      const scale = make("ImageScale", [320, 240]);
      const set = (node, values) => {
        for (const widget of node.widgets) widget.value = values[widget.name] ?? widget.value;
      };
      set(scale, { width: 256, height: 256 });
      saver.pos = [640, 90];
      saver.title = "Luna Daemon Image Saver";
      const barrier = make("LunaSaveBarrier", [1000, 90]);
      const show = make("PreviewAny", [1000, 320], [260, 120]);
      load.connect(0, scale, 0);
      scale.connect(0, saver, input("image_2"));
      set(saver, { affix_2: "SMALL", format_2: "jpeg" });
      saver.connect(0, barrier, 0);
      barrier.connect(0, show, 0);
      window.show = show;
      app.canvas.ds.scale = 0.85; app.canvas.ds.offset = [40, 170];
    }""")
    browser.queue()
    browser.until(f"{LINE} === '2 saved'")
    names = browser.page.evaluate(OUTPUTS)
    assert names == [f"astronaut_{browser.mode}_RAW.png", f"astronaut_{browser.mode}_SMALL.jpg"]
    browser.sees(names)
    browser.until("(app.nodeOutputs[show.id]?.text ?? []).join().includes('_RAW.png')")
    browser.shot("nodes", NODES)


STACK = """() => {
  const [load] = app.graph.findNodesByType("LoadImage");
  window.stacks = [1, 2].map((which) => {
    const stack = LiteGraph.createNode("LunaImageStack");
    app.graph.add(stack);
    stack.pos = [60, 300 + 200 * which];
    for (const slot of [1, 2]) {
      load.connect(0, stack, stack.inputs.findIndex(({ name }) => name === `image_${slot}`));
      const row = { affix: `${which}x${slot}`, format: slot === 1 ? "webp" : "png", subdir: slot === 1 };
      for (const [name, value] of Object.entries(row)) {
        stack.widgets.find((one) => one.name === `${name}_${slot}`).value = value;
      }
    }
    return stack;
  });
  stacks[0].connect(0, stacks[1], 0);
  stacks[1].connect(0, saver, input("stack"));
}"""


def test_stacks_bring_a_saver_any_number_of_images_each_with_its_settings(browser):
    browser.build(filename="stack")
    browser.page.evaluate(STACK)
    hidden = "stacks[0].widgets.filter((one) => one.hidden).map((one) => one.name)"
    names = (f"{name}_{slot}" for slot in (3, 4, 5) for name in ("affix", "format", "subdir"))
    assert browser.page.evaluate(hidden) == [*names]
    graph = browser.page.evaluate("app.graph.serialize()")  # saved and opened again
    browser.page.evaluate("async (graph) => { await app.loadGraphData(graph); }", graph)
    browser.page.evaluate("""() => {
      [window.saver] = app.graph.findNodesByType("LunaDaemonImageSaver");
      window.stacks = app.graph.findNodesByType("LunaImageStack");
    }""")
    assert browser.page.evaluate(hidden)
    browser.queue()
    browser.until(f"{LINE} === '5 saved'")
    files = browser.page.evaluate("app.nodeOutputs[saver.id].images")
    assert [f"{one['subfolder']}/{one['filename']}" for one in files] == [
        f"{browser.mode}/{path}"
        for path in (
            "RAW/stack_RAW.png",
            "1x1/stack_1x1.webp",
            "stack_1x2.png",
            "2x1/stack_2x1.webp",
            "stack_2x2.png",
        )
    ]
    browser.shot("stack")
    browser.page.evaluate("() => { stacks[1].mode = 4; saver.widgets[1].value = 'bypassed_stack'; }")
    browser.queue()
    browser.until(f"{LINE} === '3 saved'")


def test_save_image_is_replaced_by_the_menu_with_its_names(browser):
    browser.page.evaluate("""() => {
      app.graph.clear();
      const [load, save] = ["LoadImage", "SaveImage"].map((type) => LiteGraph.createNode(type));
      app.graph.add(load);
      app.graph.add(save);
      load.widgets.find(({ name }) => name === "image").value = "picture.png";
      load.connect(0, save, 0);
      save.widgets.find(({ name }) => name === "filename_prefix").value = "menu/%width%/like";
      const items = app.canvas.getNodeMenuOptions(save);
      items.find((item) => item?.content === "Replace by Luna saver").callback();
      [window.saver] = app.graph.findNodesByType("LunaDaemonImageSaver");
    }""")
    assert browser.page.evaluate("app.graph.findNodesByType('SaveImage').length") == 0
    browser.queue()
    browser.until(f"{LINE} === '1 saved'")
    (name,) = browser.page.evaluate(OUTPUTS)
    assert re.fullmatch(r"like_0000\d_\.png", name)
    assert (browser.comfy.base / "output" / "menu" / "256" / name).is_file()


def test_the_page_says_that_images_are_being_saved_and_that_it_may_be_closed(browser, held):
    browser.build(filename="pending")
    browser.queue()
    line = "document.querySelector('#luna-farm-pending')"
    browser.until(f"{line}?.textContent === 'Luna Farm: images still to save: 1. You may close this tab.'")
    browser.shot("pending")
    held()
    browser.until(f"!{line}")


@pytest.mark.skipif(sys.platform == "win32", reason="stops a worker with SIGSTOP")
def test_the_page_and_the_node_count_what_is_left(browser, held, running):
    browser.build(filename="left")
    browser.page.evaluate("""() => {
      const [load] = app.graph.findNodesByType("LoadImage");
      const repeat = LiteGraph.createNode("RepeatImageBatch");
      app.graph.add(repeat);
      repeat.widgets.find(({ name }) => name === "amount").value = 6;
      load.connect(0, repeat, 0); repeat.connect(0, saver, input("image_1"));
    }""")
    browser.queue()
    words = "(document.querySelector('#luna-farm-pending')?.textContent ?? '')"
    browser.until(f"{words}.includes(': 6.') && {LINE}.startsWith('Saving 6')")
    stopped = running.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        held()  # the other worker saves
        browser.until(f"/: [1-5][.]/.test({words}) && /^Saving [1-5]…/.test({LINE})")
    finally:
        os.kill(stopped, signal.SIGCONT)
    browser.until(f"{LINE} === '6 saved' && !{words}")


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_a_farm_that_ends_before_an_image_is_saved_and_is_started_again_shows_it(browser, running, killed):
    """A pause ends with the farm that was paused."""
    browser.build(filename=f"restart_{killed}")
    with running.client() as client:
        client.pause()
    browser.queue()
    browser.until(f"{LINE}.startsWith('Saving 1')")
    if killed:
        running.process.kill()
        running.process.wait()
    else:
        with running.client() as client:
            client.shutdown(now=True)
        running.process.wait(60)
    try:
        browser.shot(f"away_{killed}")
        assert browser.seen() == []
        assert browser.page.evaluate(f"{LINE}.startsWith('Saving 1')")
    finally:
        running.start()
    browser.until(PREVIEW)
    browser.until(f"{LINE} === '1 saved'")
    browser.shot(f"restarted_{killed}")
    assert browser.seen() == [f"restart_{killed}_RAW.png"]


def test_no_preview_where_none_is_wanted(browser):
    browser.build(filename="unseen", preview=False)
    browser.queue()
    browser.until(f"{LINE} === '1 saved'")
    assert browser.page.evaluate(OUTPUTS) == []


def test_an_example_opens_with_all_inputs_and_outputs(browser):
    """Examples are files of the present version; a file of an earlier one lists fewer."""
    graph = browser.comfy.get("/api/workflow_templates/luna-farm/luna_save_in_background.json")
    browser.page.evaluate("async (graph) => { await app.loadGraphData(graph); }", graph)
    browser.page.evaluate("() => { [window.saver] = app.graph.findNodesByType('LunaDaemonImageSaver'); }")
    names = browser.page.evaluate("saver.outputs.map(({ name }) => name)")
    assert names == ["status", "paths", *(f"image_{n}" for n in range(1, 6))]
    assert browser.page.evaluate("saver.widgets.find(({ name }) => name === 'embed').value") == "full"
    assert browser.page.evaluate("saver.widgets.find(({ name }) => name === 'filename_prefix').value") == ""


def test_a_file_of_the_first_version_keeps_its_values(browser):
    browser.build(filename="kept", when_busy="save_here")
    graph = browser.page.evaluate("app.graph.serialize()")
    (old,) = (node for node in graph["nodes"] if node["type"] == "LunaDaemonImageSaver")
    old["widgets_values"] = old["widgets_values"][:28]
    old["outputs"] = old["outputs"][:1]
    later = ("mask", "embed", "preview", "filename_prefix", "stack")
    sockets = [one for one in old["inputs"] if one["name"] not in later]
    old["inputs"] = sorted(sockets, key=lambda one: one["name"] == "metadata")  # it stood behind the images
    browser.page.evaluate("async (graph) => { await app.loadGraphData(graph); }", graph)
    browser.page.evaluate("() => { [window.saver] = app.graph.findNodesByType('LunaDaemonImageSaver'); }")
    values = browser.page.evaluate(
        "Object.fromEntries(saver.widgets.map(({ name, value }) => [name, value]))"
    )
    assert (values["filename"], values["when_busy"]) == ("kept", "save_here")
    assert (values["embed"], values["preview"], values["filename_prefix"]) == ("full", True, "")
    assert browser.page.evaluate("input('stack')") > 0
    browser.queue()
    browser.until(f"{LINE} === '1 saved'")


def test_scripts_use_nothing_that_the_frontend_calls_deprecated(browser):
    """The frontend warns once of each thing: the stack tells whether a script of ours did it."""
    browser.page.add_init_script("""
      window.stacks = [];
      for (const level of ["warn", "error"]) {
        const say = console[level];
        console[level] = (...words) => { stacks.push(`${words[0]} ${new Error().stack}`); say(...words); };
      }
    """)
    browser.page.reload()
    browser.loaded()
    browser.build(filename="quiet")
    browser.queue()
    browser.until(f"{LINE} === '1 saved'")
    assert [one for one in browser.page.evaluate("stacks") if "extensions/luna-farm" in one] == []


def test_the_nodes_speak_the_users_language(browser):
    browser.comfy.post("/settings/Comfy.Locale", "zh")
    try:
        browser.page.reload()
        browser.loaded()
        browser.until("LiteGraph.registered_node_types.LunaDaemonImageSaver?.title === 'Luna 后台图像保存'")
        browser.build()
        browser.until(f"{LINE} === '还没有图像'")
        browser.shot("chinese")
    finally:
        browser.comfy.post("/settings/Comfy.Locale", "en")
        browser.page.reload()
        browser.loaded()


@pytest.mark.parametrize(
    "name", ["LunaDaemonImageSaver", "LunaMultiSaver", "LunaImageStack", "LunaSaveBarrier", "LunaMetadata"]
)
def test_help_pages_are_where_the_frontend_looks(name, browser):
    for page in (f"{name}.md", f"{name}/zh.md"):
        answer = browser.page.request.get(f"{browser.comfy.url}/extensions/luna-farm/docs/{page}")
        assert answer.status == 200
        assert answer.text().startswith("# Luna")
