// The page: what the feed tells, as things to look at. Every text goes in as text, never as markup.
import { Chart, Series } from "/charts.js";
import { Link } from "/link.js";

const RESULTS = 18;
const FAILURES = 50;
const FAILURES_AT_ONCE = 4;
const $ = (id) => document.getElementById(id);

// --- words

const whole = new Intl.NumberFormat("en");
const ms = (value) => (value < 1 ? `${value.toFixed(2)} ms` : value < 100 ? `${value.toFixed(1)} ms` : value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
const perSecond = (value) => (value < 10 ? value.toFixed(1) : whole.format(Math.round(value)));
const bytes = (value) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
};
const span = (seconds) => {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
};
const clock = (iso) => { const at = new Date(iso); return isNaN(at) ? "" : at.toLocaleTimeString([], { hour12: false }); };
const fileName = (path) => path.split(/[\\/]/).at(-1);
const plural = (count, word) => `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;

// --- nodes

const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const make = (tag, className, ...children) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
};
const say = (text) => put($("say"), text);
const bar = (share, label) => {
  const node = make("span", "bar");
  node.style.setProperty("--share", String(Math.max(0, Math.min(1, share))));
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", label);
  return node;
};
// Replace the children only if what they show has changed, so that focus and selection stay.
const shown = new WeakMap();
const show = (host, key, build) => {
  if (shown.get(host) === key) return;
  shown.set(host, key);
  host.replaceChildren(...build());
};

// --- what is known

const series = { rate: new Series("add"), queue: new Series("last"), handover: new Series("mean"), wait: new Series("mean"), encode: new Series("mean"), write: new Series("mean") };
const charts = [
  new Chart($("c-rate"), { title: "Images per second", lines: [{ name: "saved", series: series.rate, style: "moon" }], format: perSecond, least: 5 }),
  new Chart($("c-queue"), { title: "Images in the queue", lines: [{ name: "queued", series: series.queue, style: "sky" }], format: (value) => whole.format(Math.round(value)), least: 5 }),
  new Chart($("c-handover"), { title: "Hand-over", lines: [{ name: "hand-over", series: series.handover, style: "leaf" }], format: ms, least: 0.2 }),
  new Chart($("c-save"), {
    title: "Time to save", stacked: true, format: ms, least: 5,
    lines: [{ name: "waiting", series: series.wait, style: "sky" }, { name: "encoding", series: series.encode, style: "moon" }, { name: "writing", series: series.write, style: "leaf" }],
  }),
];
const handovers = [];
let status = null;
let statusSeq = 0;
let showAll = false;
let farmNow = 0;
let results = [];
let failures = new Map(); // by job id, newest last
let dirty = true;

// A rejected image that was kept in a file is told of twice: that makes one tile.
const remember = (event) => {
  const [last] = results;
  const same = last && last.job_id === event.job_id && last.index === event.index;
  results = [same ? { ...last, ...event } : event, ...results.slice(same ? 1 : 0)].slice(0, RESULTS);
};
const heard = {
  status(data, now, seq) {
    status = data;
    statusSeq = seq;
    farmNow = now;
    series.queue.put(now, data.queue?.images ?? 0);
    dirty = true;
  },
  event(event) {
    const at = Date.parse(event.timestamp);
    if (event.event === "save_job_queued" && event.handover_ms !== undefined) {
      series.handover.put(at, event.handover_ms);
      handovers.push(event.handover_ms);
      if (handovers.length > 200) handovers.shift();
    } else if (event.event === "image_saved") {
      series.rate.put(at, 1);
      for (const [name, key] of [["wait", "queue_ms"], ["encode", "encode_ms"], ["write", "write_ms"]]) if (event[key] !== undefined) series[name].put(at, event[key]);
      remember(event);
    } else if (event.event === "image_rejected") {
      remember(event);
    } else if (event.event === "image_failed") {
      failures.set(event.job_id, event);
      if (failures.size > FAILURES) failures.delete(failures.keys().next().value);
    } else if (event.event === "save_job_done" && event.state === "done") {
      failures.delete(event.job_id);
    } else if (event.event === "folder_failing") {
      say(`The folder ${event.path ?? ""} cannot be written now.`);
    } else if (event.event === "folder_recovered") {
      say(`The folder ${event.path ?? ""} can be written again.`);
    } else if (event.event === "destination_failing") {
      say(`Nothing can be sent to ${event.destination ?? ""} now.`);
    } else if (event.event === "destination_recovered") {
      say(`Files are sent to ${event.destination ?? ""} again.`);
    }
    dirty = true;
  },
  gap() { say("Some events of the time without connection are no longer held."); },
  state(state, wait) {
    const words = { connecting: "Connecting", open: "Live", lost: "Connection lost", locked: "Token needed" };
    const before = $("live").dataset.state;
    if (state === "connecting" && before !== "connecting") return; // an attempt is no news
    if (state === before && state === "open") return;
    $("live").dataset.state = state;
    put($("live"), words[state]);
    $("banner").hidden = state === "open" || state === "connecting";
    if (state === "lost") put($("banner-text"), `The farm does not answer. What you see is how it was at ${clock(farmNow) || "no time yet"}. Next try in ${span(Math.ceil(wait / 1000))}; if the farm was stopped, start it with: luna-farm start`);
    if (state === "locked") { put($("banner-text"), "This farm shows itself only to its own user, or to who has its token."); askToken(); }
    if (state === "open" && before === "lost") say("Connected again.");
    else if (state === "lost" && before === "open") say("The connection to the farm is lost. Trying again.");
  },
};
const link = new Link(heard);

// --- actions and the token

let afterToken = null;
function askToken(then = null, error = "") {
  afterToken = then;
  put($("token-error"), error);
  put($("token-path"), status?.state_dir ? `${status.state_dir}/token` : "token");
  if (!$("token-dialog").open) $("token-dialog").showModal();
  $("token-input").value = "";
  $("token-input").focus();
}
function useToken(token) {
  link.token = token;
  if (token) sessionStorage.setItem("luna-farm-token", token);
  else sessionStorage.removeItem("luna-farm-token");
  put($("unlock"), token ? "Forget token" : "Enter token");
}
async function retry(jobId, button) {
  if (!link.token) return askToken(() => retry(jobId, button));
  button.disabled = true;
  try {
    const answer = await link.act("retry", jobId);
    if (answer.code === "unauthorized") {
      useToken("");
      return askToken(() => retry(jobId, button), answer.error);
    }
    if (answer.ok) failures.delete(jobId);
    say(answer.ok ? `Job ${jobId} is tried again.` : answer.error);
    put(button.parentElement.querySelector(".answer"), answer.ok ? "Queued again" : answer.error);
  } catch (error) {
    say(error.message);
    put(button.parentElement.querySelector(".answer"), error.message);
  } finally {
    button.disabled = false;
  }
}
$("token-form").addEventListener("submit", () => {
  useToken($("token-input").value.trim());
  const then = afterToken;
  afterToken = null;
  if (link.waiting) link.open();
  then?.();
});
$("token-cancel").addEventListener("click", () => $("token-dialog").close());
$("unlock").addEventListener("click", () => (link.token ? (useToken(""), say("The token is forgotten.")) : askToken()));
$("trouble-more").addEventListener("click", () => { showAll = !showAll; dirty = true; });
$("retry-now").addEventListener("click", () => link.now());

// --- drawing

function drawMoon(share, text) {
  // The terminator of a moon lit to `share` is half an ellipse: its width runs from -44 (new) through 0 to 44 (full).
  const width = 44 * (2 * share - 1);
  $("moon-lit").setAttribute("d", share <= 0.005 ? "" : `M0 -44A44 44 0 0 1 0 44A${Math.abs(width).toFixed(1)} 44 0 0 ${width > 0 ? 1 : 0} 0 -44Z`);
  put($("moon-text"), text);
}
function drawFigures() {
  const { totals = {}, queue = {}, arena = {}, workers = [] } = status;
  const at = Math.floor(farmNow / 1000);
  const recent = Array.from({ length: 10 }, (_, i) => series.rate.at(at - 1 - i)).reduce((sum, value) => sum + value, 0) / 10;
  const median = [...handovers].sort((a, b) => a - b)[handovers.length >> 1];
  const dead = (status.dead_letters ?? []).length;
  put($("f-saved"), whole.format(totals.images_saved ?? 0));
  put($("f-bytes"), `${bytes(totals.bytes_written ?? 0)} in ${plural(totals.jobs ?? 0, "job")}`);
  put($("f-rate"), perSecond(recent));
  put($("f-queue"), whole.format(queue.images ?? 0));
  put($("f-queue-sub"), `${bytes(arena.used_bytes ?? 0)} of ${bytes(arena.bytes ?? 0)} shared`);
  put($("f-handover"), median === undefined ? "–" : ms(median));
  put($("f-failed"), whole.format(dead));
  $("f-failed").classList.toggle("alarm", dead > 0);
  put($("f-failed-sub"), `${plural(dead, "failed image")} to retry, ${whole.format(totals.images_discarded ?? 0)} gated`);
  const share = arena.bytes ? arena.used_bytes / arena.bytes : 0;
  drawMoon(share, `Shared memory in use: ${bytes(arena.used_bytes ?? 0)} of ${bytes(arena.bytes ?? 0)}`);
  const doing = status.draining ? "Draining: finishes what it has, takes nothing new" : queue.images ? "Saving" : "Ready";
  put($("state"), `${doing}, ${plural(workers.length, "worker")}, up ${span(status.uptime_s ?? 0)}`);
  put($("about"), `Luna Farm ${status.version ?? ""}, process ${status.pid ?? ""}, PNG by ${status.encoders?.png ?? "library"}`);
  document.title = queue.images ? `${queue.images} queued · Luna Farm` : "Luna Farm";
  $("empty").hidden = (totals.jobs ?? 0) > 0 || results.length > 0;
}
function drawWorkers() {
  const rows = status.workers ?? [];
  show($("workers"), JSON.stringify(rows), () => rows.map((row) => {
    const cell = (label, ...content) => { const node = make("td", "", ...content); node.dataset.label = label; return node; };
    const head = make("th", "", String(row.pid));
    head.scope = "row";
    const doing = row.current ? make("span", "doing", fileName(row.current.path ?? ""), make("small", "", ` job ${row.current.job_id}`)) : make("span", "faint", row.state === "idle" ? "waiting for work" : "");
    const cpu = row.cpu_percent ?? 0;
    const node = make("tr", "", head,
      cell("State", make("span", `dot ${row.state}`, row.state)),
      cell("CPU", bar(cpu / 100, `${Math.round(cpu)} percent`), make("span", "num", `${Math.round(cpu)} %`)),
      cell("Memory", bytes(row.own_bytes ?? row.rss_bytes ?? 0)),
      cell("Saved", whole.format(row.images_saved ?? 0)),
      cell("Speed", `${(row.mb_per_s ?? 0).toFixed(1)} MB/s`),
      cell("Doing now", doing));
    node.title = `${row.threads ?? "?"} threads, ${row.open_files ?? "?"} open files, up ${span(row.uptime_s ?? 0)}`;
    return node;
  }));
}
function drawTrouble() {
  const letters = status.dead_letters ?? [];
  // The status is the truth; an event that is newer than it adds what it does not say yet.
  const known = new Set(letters.map((letter) => letter.job_id));
  for (const [id, event] of failures) if (event.seq <= statusSeq && !known.has(id)) failures.delete(id);
  const rows = new Map(failures);
  for (const letter of letters) rows.set(letter.job_id, { ...rows.get(letter.job_id), ...letter });
  const list = [...rows.values()].reverse();
  const few = showAll ? list.slice(0, FAILURES) : list.slice(0, FAILURES_AT_ONCE);
  $("trouble-none").hidden = list.length > 0;
  $("trouble-more").hidden = list.length <= FAILURES_AT_ONCE;
  put($("trouble-more"), showAll ? "Show fewer" : `Show all ${list.length}`);
  $("trouble-more").setAttribute("aria-expanded", String(showAll));
  show($("trouble"), JSON.stringify(few.map((row) => [row.job_id, row.error])), () => few.map(troubleRow));
}
function troubleRow(row) {
  const button = make("button", "", "Retry");
  button.type = "button";
  button.setAttribute("aria-label", `Retry job ${row.job_id}`);
  button.addEventListener("click", () => retry(row.job_id, button));
  const facts = [`Job ${row.job_id}`, row.path && fileName(row.path), row.code, row.timestamp && clock(row.timestamp)];
  return make("li", "",
    make("div", "what", make("strong", "", row.error || "No reason was given."), make("p", "faint", facts.filter(Boolean).join(", "))),
    make("div", "act", button, make("span", "answer faint")));
}
function image(event) {
  if (event.thumbnail) {
    const image = make("img");
    image.src = `data:image/jpeg;base64,${event.thumbnail}`;
    image.alt = "";
    return image;
  }
  return make("span", "blank", event.threshold === undefined ? (event.format ?? "") : "gated");
}
const tiles = new WeakMap();
function tile(event) {
  const rejected = event.threshold !== undefined; // only a rejection tells the threshold
  const copy = make("button", "frame", image(event));
  copy.type = "button";
  copy.title = `${event.path}\nCopy the path`;
  copy.setAttribute("aria-label", `Copy the path of ${fileName(event.path)}`);
  copy.addEventListener("click", () => navigator.clipboard.writeText(event.path).then(() => say("Path copied."), () => say(event.path)));
  const facts = rejected ? `score ${event.score?.toFixed(2)} below ${event.threshold?.toFixed(2)}` : `${bytes(event.bytes ?? 0)}, ${ms(event.ms ?? 0)}`;
  const node = make("li", rejected ? "rejected" : "", copy, make("span", "name", fileName(event.path)), make("span", "facts", facts));
  if (!rejected && event.score !== null && event.score !== undefined) {
    node.append(make("span", "facts", bar(event.score, `gate score ${event.score.toFixed(2)}`), `gate ${event.score.toFixed(2)}`));
  }
  node.append(make("time", "facts", clock(event.timestamp)));
  return node;
}
function drawResults() {
  $("results-none").hidden = results.length > 0;
  show($("results"), results.map((event) => event.seq).join(), () => results.map((event) => {
    if (!tiles.has(event)) tiles.set(event, tile(event));
    return tiles.get(event);
  }));
}
function drawDestination(row) {
  const failing = row.state === "failing";
  const node = make("li", failing ? "failing" : "", make("span", "path", row.destination),
    make("span", "facts", `${row.uploading} uploads run, ${row.waiting} wait`));
  if (failing) node.append(make("p", "error", `Fails for ${span(row.since_s ?? 0)}: ${row.error}`));
  return node;
}
function drawFolders() {
  const folders = status.folders ?? [], destinations = status.destinations ?? [];
  $("folders-none").hidden = folders.length + destinations.length > 0;
  show($("folders"), JSON.stringify([folders, destinations]), () => [...destinations.map(drawDestination), ...folders.map((row) => {
    const used = row.total_bytes ? 1 - row.free_bytes / row.total_bytes : 0;
    const failing = row.state === "failing";
    const node = make("li", failing ? "failing" : "", make("span", "path", row.path),
      bar(used, `${Math.round(used * 100)} percent used`),
      make("span", "facts", row.total_bytes ? `${bytes(row.free_bytes)} free of ${bytes(row.total_bytes)}` : "size unknown"));
    if (failing) node.append(make("p", "error", `Cannot be written for ${span(row.since_s ?? 0)}: ${row.error}`));
    if (used > 0.95) node.classList.add("nearly-full");
    return node;
  })]);
}
function draw() {
  requestAnimationFrame(draw); // stands still while the page is hidden
  if (!dirty || !status) return;
  dirty = false;
  drawFigures();
  drawWorkers();
  drawTrouble();
  drawResults();
  drawFolders();
  for (const chart of charts) chart.draw(farmNow);
}

// --- theme: system, light, dark; kept in this browser

const THEMES = ["system", "light", "dark"];
function useTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  put($("theme"), `Theme: ${theme}`);
  localStorage.setItem("luna-farm-theme", theme);
}
$("theme").addEventListener("click", () => useTheme(THEMES[(THEMES.indexOf(localStorage.getItem("luna-farm-theme")) + 1) % 3]));
useTheme(THEMES.includes(localStorage.getItem("luna-farm-theme")) ? localStorage.getItem("luna-farm-theme") : "system");

// --- start: a token may come in the fragment, which no server ever sees; it leaves the address at once

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) history.replaceState(null, "", location.pathname);
useToken(given ?? sessionStorage.getItem("luna-farm-token") ?? "");
link.open();
requestAnimationFrame(draw);
