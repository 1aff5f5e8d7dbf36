// The gallery page: what is searched for, which images match, and what becomes of a choice.
import { $, button, make, put, say, startTheme, whole } from "/dom.js";
import { Grid, dayName } from "/gallery_grid.js";
import { Preview } from "/gallery_preview.js";
import { Link } from "/link.js";
import { Login, act } from "/login.js";

const FIELDS = ["words", "model", "from", "to", "seed", "job", "score", "state"];
const TYPING_MS = 200;
const SETTLE_MS = 70; // a tile that flies by is not asked for
const AT_ONCE = 96;
const FIRST = 40; // about one screen
const KEPT = 3000;
const SAVED_MS = 1500; // events come before the catalogue has them
const WHOLE_AT_ONCE = 3;

// --- the farm

const headers = () => (login.session ? { Authorization: `Bearer ${login.session}` } : {});
async function get(path, signal) {
  const answer = await fetch(path, { headers: headers(), cache: "no-store", signal }).catch((error) => {
    if (error.name === "AbortError") throw error;
    return new Response("The farm does not answer.", { status: 503 });
  });
  if (answer.status === 401) login.ask(start);
  return answer;
}

// --- the search: in the form, and in the address, so that it can be kept and shared

let similar = "";
function read() {
  const given = new URLSearchParams(location.search);
  for (const name of FIELDS) $(name).value = given.get(name) ?? "";
  similar = given.get("similar") ?? "";
}
function typed() {
  const filters = {};
  for (const name of FIELDS) if ($(name).value.trim()) filters[name] = $(name).value.trim();
  if (similar) filters.similar = similar;
  return filters;
}
// The days of the reader, as seconds since 1970.
function question({ from, to, state, ...rest }) {
  const asked = { ...rest };
  if (from) asked.since = Math.floor(new Date(`${from}T00:00:00`).getTime() / 1000);
  if (to) asked.until = Math.floor(new Date(`${to}T23:59:59.999`).getTime() / 1000);
  if (state === "failed") asked.failed = 1;
  return new URLSearchParams(asked);
}
function address(filters, image) {
  const query = new URLSearchParams(filters);
  if (image) query.set("image", image);
  return `/gallery${query.size ? `?${query}` : ""}`;
}

let ids = new Float64Array(0);
let asking = null;
async function search({ keep = false } = {}) {
  const filters = typed();
  const count = Object.keys(filters).filter((name) => name !== "words").length;
  $("clear").hidden = Object.keys(filters).length === 0;
  put($("filters-count"), count ? ` (${count})` : "");
  for (const name of FIELDS.slice(1)) $(name).parentElement.classList.toggle("set", name in filters);
  if (!keep) history.replaceState(null, "", address(filters));
  asking?.abort();
  asking = new AbortController();
  try {
    const asked = question(filters);
    const early = keep && known.size ? null : loadFirst(asked, asking.signal);
    const answer = await get(`/api/gallery/ids?${asked}`, asking.signal);
    const problem = answer.ok ? "" : answer.status === 404 ? "This farm keeps no catalogue (setting catalogue), so there is nothing to search." : (await answer.text()).trim();
    put($("problem"), problem);
    $("problem").hidden = !problem;
    if (!answer.ok) return;
    ids = new Float64Array(await answer.arrayBuffer());
    await early;
  } catch (error) {
    if (error.name === "AbortError") return;
    throw error;
  }
  news(0);
  if (!keep) { grid.at = 0; scrollTo(0, 0); }
  grid.show(ids, !similar);
  drawCount(filters);
}
function drawCount(filters) {
  const searched = Object.keys(filters).length > 0;
  put($("count"), ids.length ? `${whole.format(ids.length)} image${ids.length === 1 ? "" : "s"}${similar ? ", the most alike first" : ""}` : "");
  $("none").hidden = ids.length > 0;
  put($("none-title"), searched ? "Nothing matches" : "No images yet");
  put($("none-text"), searched && remarks ? remarks : searched ? "No saved image matches all of this. Words are found in prompts, names, models, LoRAs and custom metadata." : "Every image that this farm saves appears here within a second or two.");
}

// --- tiles: asked for in groups, once the scrolling settles

const known = new Map(); // id -> tile
const nodes = new Map(); // id -> node
let onScreen = [];
let settle = 0;
let loading = null;
function needed(list) {
  onScreen = list;
  clearTimeout(settle);
  settle = setTimeout(load, known.size ? SETTLE_MS : 0);
}
// The tiles of the first screen come beside the ids of all images, and not one question later.
let remarks = ""; // what is not looked for as it was typed
async function loadFirst(asked, signal) {
  try {
    const answer = await get(`/api/gallery/tiles?first=${FIRST}&${asked}`, signal);
    if (!answer.ok) return;
    const first = await answer.json();
    remarks = first.remarks.join(" ");
    for (const tile of first.tiles) known.set(tile.id, tile);
  } catch { /* another search began, or the farm is gone: the ids say so */ }
}
async function load() {
  const missing = onScreen.filter((id) => !known.has(id)).slice(0, AT_ONCE);
  if (!missing.length || loading) return;
  loading = missing;
  try {
    const answer = await get(`/api/gallery/tiles?ids=${missing.join()}`);
    if (answer.ok) {
      const { tiles } = await answer.json();
      for (const id of missing) known.set(id, { id, name: "", state: "gone", gone: true });
      for (const tile of tiles) known.set(tile.id, tile);
      for (const id of missing) if (nodes.get(id)?.isConnected) dress(nodes.get(id), known.get(id));
      for (const id of known.keys()) { if (known.size <= KEPT) break; known.delete(id); }
    }
  } finally {
    loading = null;
  }
  if (onScreen.some((id) => !known.has(id))) load();
}
function build(id) {
  const node = make("div", "shot", button("", "Image", () => open(id)));
  node.setAttribute("role", "listitem");
  nodes.set(id, node);
  if (nodes.size > KEPT) nodes.delete(nodes.keys().next().value);
  if (known.has(id)) dress(node, known.get(id));
  return node;
}
function dress(node, tile) {
  const face = node.firstElementChild;
  const size = tile.width ? `${tile.width} × ${tile.height}` : "";
  face.setAttribute("aria-label", [tile.name || "Image", size, tile.model, tile.state === "saved" ? "" : tile.state].filter(Boolean).join(", "));
  face.title = tile.name;
  node.classList.toggle("failed", tile.state === "failed");
  const parts = [];
  const image = make("img", "");
  image.alt = "";
  image.decoding = "async";
  image.addEventListener("load", () => image.classList.add("here"), { once: true });
  if (tile.thumbnail) {
    image.src = `data:image/jpeg;base64,${tile.thumbnail}`;
    parts.push(image);
  } else if (tile.local && tile.state !== "failed" && ["png", "jpeg", "webp", "avif"].includes(tile.format)) {
    parts.push(image);
    showFile(tile, node, image);
  } else {
    parts.push(make("span", "blank", tile.gone ? "gone" : tile.format || "?"));
  }
  if (tile.state !== "saved" && tile.state !== "gone") parts.push(make("span", "badge", tile.state === "discarded" ? "rejected" : tile.state));
  parts.push(make("span", "caption", make("span", "", tile.name), make("br"), [size, tile.model].filter(Boolean).join(", ")));
  face.replaceChildren(...parts);
}

// Without a thumbnail (an older image, or one of a busy farm) the file itself is shown, a few at a time.
const queue = [];
let running = 0;
function showFile(tile, node, image) {
  queue.push({ tile, node, image });
  nextWhole();
}
async function nextWhole() {
  while (running < WHOLE_AT_ONCE && queue.length) {
    const { tile, node, image } = queue.pop(); // what came last is on the screen
    if (!node.isConnected) continue;
    running += 1;
    const answer = await get(`/api/gallery/file?id=${tile.id}`);
    if (answer.ok) {
      image.src = URL.createObjectURL(await answer.blob());
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    } else image.replaceWith(make("span", "blank", tile.format));
    running -= 1;
  }
}

// --- one image

let opened = -1;
function open(id, how = "push") {
  const index = ids.indexOf(id);
  opened = index;
  if (index >= 0) grid.mark(index);
  history[how === "push" ? "pushState" : "replaceState"]({ image: id }, "", address(typed(), id));
  const near = [ids[index + 1], ids[index - 1]].filter((other) => other !== undefined && known.get(other)?.local);
  preview.show(id, known.get(id) ?? { id, name: "", state: "saved", local: true }, { first: index <= 0, last: index < 0 || index === ids.length - 1, near });
}
function turn(step) {
  const next = opened + step;
  if (opened < 0 || next < 0 || next >= ids.length) return;
  const id = ids[next];
  if (known.has(id)) return open(id, "replace");
  get(`/api/gallery/tiles?ids=${id}`).then(async (answer) => {
    if (!answer.ok) return;
    for (const tile of (await answer.json()).tiles) known.set(tile.id, tile);
    open(id, "replace");
  });
}
const preview = new Preview({
  get, turn,
  canOpen: () => canOpen,
  find: (filters) => {
    preview.shut();
    for (const name of FIELDS) $(name).value = filters[name] ?? "";
    similar = filters.similar ?? "";
    search();
  },
  openFolder: (row) => act(login, link, "open_folder", { row: row.id }, (answer) => {
    if (!answer.ok) preview.note(answer.error);
    say(answer.ok ? `Opened ${answer.result.opened}.` : answer.error);
  }),
  closed: () => {
    if (history.state?.image) history.replaceState(null, "", address(typed()));
    if (opened >= 0) grid.focus(opened);
    opened = -1;
  },
});
addEventListener("popstate", () => {
  if (history.state?.image) open(history.state.image, "replace");
  else if (preview.dialog.open) preview.shut();
});

// --- what is saved while the page is open

let fresh = 0;
let refresh = 0;
function news(count) {
  fresh = count;
  $("news").hidden = count === 0;
  put($("news"), `${whole.format(count)} new`);
}
const heard = {
  status(data) { login.stateDir = data.state_dir ?? ""; },
  event(event) {
    if (!["image_saved", "image_rejected", "image_failed"].includes(event.event)) return;
    fresh += 1;
    clearTimeout(refresh);
    refresh = setTimeout(() => (scrollY < 80 && !preview.dialog.open && !$("grid").contains(document.activeElement) ? search({ keep: true }) : news(fresh)), SAVED_MS);
  },
  gap() {},
  state(state) {
    const words = { connecting: "Connecting", open: "Live", lost: "Connection lost", locked: "Log in" };
    $("live").dataset.state = state;
    put($("live"), words[state]);
  },
};
const link = new Link(heard, { thumbnails: false });
const login = new Login(() => {
  link.token = login.session;
  if (login.session && link.waiting) link.open();
});

// --- start

const bar = () => $("words").parentElement.offsetHeight + $("count").parentElement.offsetHeight + 8;
const grid = new Grid($("grid"), { build, needed, bar, moved: (day) => { put($("day"), day === null || scrollY < 80 ? "" : dayName(day)); $("search").classList.toggle("stuck", scrollY > 60); } });
let canOpen = false;
let typing = 0;
$("search").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typing); search(); });
$("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, TYPING_MS); });
$("clear").addEventListener("click", () => { for (const name of FIELDS) $(name).value = ""; similar = ""; search(); $("words").focus(); });
$("filters-toggle").addEventListener("click", () => {
  const shown = $("filters").classList.toggle("shown");
  $("filters-toggle").setAttribute("aria-expanded", String(shown));
});
$("news").addEventListener("click", () => { scrollTo(0, 0); search({ keep: true }); });
addEventListener("keydown", (event) => {
  if (event.key === "/" && !preview.dialog.open && !event.target.matches("input, select")) { event.preventDefault(); $("words").focus(); }
});
async function start() {
  await search({ keep: true });
  const answer = await get("/api/gallery");
  if (!answer.ok) return;
  const about = await answer.json();
  canOpen = about.can_open;
  $("models").replaceChildren(...about.models.map((name) => { const option = make("option", ""); option.value = name; return option; }));
}
startTheme();
read();
await login.start();
const image = Number(new URLSearchParams(location.search).get("image"));
await start();
if (image) open(image, "replace");
link.open();
