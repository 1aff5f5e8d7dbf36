// The page: what the feed tells, as things to look at. Every text goes in as text, never as markup.
import { Chart, Series } from "/charts.js";
import { $, bar, button, bytes, clock, fileName, make, ms, perSecond, plural, put, say, show, span, startTheme, whole } from "/dom.js";
import { Link } from "/link.js";
import { Login, act } from "/login.js";
import { Results } from "/results.js";

const FAILURES = 50;
const FAILURES_AT_ONCE = 4;

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
const failures = new Map(); // job id and index -> the event, newest last
const trials = new Map(); // the same key -> what came of a retry or dismissal that began here: {row, text, state}
let dirty = true;

const triedAgain = (event) => {
  failures.delete(keyOf(event));
  const trial = trials.get(keyOf(event));
  if (trial?.state !== "waits") return;
  trials.set(keyOf(event), { row: trial.row, text: `Saved to ${event.path}`, state: "saved" });
  say(`Saved after all: ${about(event)}.`);
};
const heard = {
  status(data, now, seq) {
    status = data;
    login.stateDir = data.state_dir ?? "";
    statusSeq = seq;
    farmNow = now;
    series.queue.put(now, data.queue?.images ?? 0);
    if (data.catalogue) results.complete();
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
      results.add(event);
      triedAgain(event);
    } else if (event.event === "image_rejected") {
      results.add(event);
    } else if (event.event === "image_failed") {
      if (trials.get(keyOf(event))?.state === "waits") say(`Failed again: ${about(event)}.`);
      trials.delete(keyOf(event));
      failures.set(keyOf(event), event);
      if (failures.size > FAILURES) failures.delete(failures.keys().next().value);
    } else if (event.event === "image_dismissed") {
      failures.delete(keyOf(event));
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
    if (state === "lost") put($("banner-text"), `The farm does not answer. What you see is how it was at ${clock(farmNow) || "no time yet"}. Next try in ${span(Math.ceil(wait / 1000))}; if the farm was stopped, start it with: ${status?.start_command ?? "luna-farm start"}`);
    if (state === "locked") { put($("banner-text"), "Only the user of this farm, and those who have its token, may read it."); login.ask(); }
    if (state === "open" && before === "lost") say("Connected again.");
    else if (state === "lost" && before === "open") say("The connection to the farm is lost. Trying again.");
  },
};
const link = new Link(heard);

// --- actions

const login = new Login(() => {
  link.token = login.session;
  if (login.session && link.waiting) link.open();
});
const results = new Results(login);
const keyOf = (row) => `${row.job_id}/${row.index ?? 0}`;
const tell = (node, text) => { say(text); put(node.closest("li").querySelector(".answer"), text); };

const about = (row) => `image ${row.index ?? 0} of job ${row.job_id}`;
function answered(row, node, answer, done) {
  node.disabled = false;
  if (answer.ok) done();
  else put(node.closest("li").querySelector(".answer"), answer.error);
  say(answer.ok ? trials.get(keyOf(row))?.text ?? "" : answer.error);
  dirty = true;
}
function retry(row, node) {
  node.disabled = true;
  act(login, link, "retry", row, (answer) => answered(row, node, answer, () => {
    failures.delete(keyOf(row));
    trials.set(keyOf(row), { row, text: "Tried again: it waits for a worker.", state: "waits" });
  }));
}
// Its pixels go with it: the first click asks.
function dismiss(row, node) {
  if (!node.dataset.sure) {
    node.dataset.sure = "yes";
    put(node, "Delete its pixels?");
    node.addEventListener("blur", () => { delete node.dataset.sure; put(node, "Dismiss"); }, { once: true });
    return;
  }
  node.disabled = true;
  act(login, link, "dismiss", row, (answer) => answered(row, node, answer, () => {
    failures.delete(keyOf(row));
    trials.set(keyOf(row), { row, text: "Dismissed: its dead letter is removed.", state: "gone" });
  }));
}
// Nothing is deleted: of images that are missing or lost the farm has no pixels.
function dismissJob(job, node) {
  if (status.dead_letters?.some((letter) => letter.job_id === job.job_id)) return tell(node, "It has failed images, too: retry or dismiss these first.");
  node.disabled = true;
  act(login, link, "dismiss", { job_id: job.job_id }, (answer) => {
    node.disabled = false;
    put(node.closest("li").querySelector(".answer"), answer.ok ? "Dismissed" : answer.error);
    say(answer.ok ? `Job ${job.job_id} is dismissed.` : answer.error);
    link.ask({ type: "get_status" });
  });
}
function cancel(job, node) {
  node.disabled = true;
  act(login, link, "cancel", { job_id: job.job_id }, (answer) => {
    node.disabled = false;
    say(answer.ok ? `Job ${job.job_id}: images that wait are cancelled.` : answer.error);
    put(node.closest("li").querySelector(".answer"), answer.ok ? "Cancelled" : answer.error);
  });
}
$("pause").addEventListener("click", () => act(login, link, status?.paused ? "resume" : "pause", {}, (answer) => {
  say(answer.ok ? (answer.result.paused ? "Paused: accepted images wait." : "Resumed.") : answer.error);
  link.ask({ type: "get_status" });
}));
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
  const attention = troubles();
  put($("f-saved"), whole.format(totals.images_saved ?? 0));
  put($("f-bytes"), `${bytes(totals.bytes_written ?? 0)} in ${plural(totals.jobs ?? 0, "job")}`);
  put($("f-rate"), perSecond(recent));
  put($("f-queue"), whole.format(queue.images ?? 0));
  put($("f-queue-sub"), `arena ${bytes(arena.used_bytes ?? 0)} of ${bytes(arena.bytes ?? 0)}`);
  put($("f-handover"), median === undefined ? "–" : ms(median));
  put($("f-failed"), whole.format(attention.length));
  $("f-failed").classList.toggle("alarm", attention.length > 0);
  const kinds = new Map();
  for (const row of attention) kinds.set(row.kind, (kinds.get(row.kind) ?? 0) + 1);
  put($("f-failed-sub"), [...kinds].map(([kind, count]) => plural(count, kind)).join(", ") || "nothing does");
  const share = arena.bytes ? arena.used_bytes / arena.bytes : 0;
  drawMoon(share, `Arena in use: ${bytes(arena.used_bytes ?? 0)} of ${bytes(arena.bytes ?? 0)}`);
  $("pause").hidden = false;
  put($("pause"), status.paused ? "Resume" : "Pause");
  $("pause").disabled = Boolean(status.draining);
  const doing = status.paused ? `Paused, ${plural(queue.images ?? 0, "image")} waiting` : status.draining ? "Draining: finishes what it has, takes nothing new" : queue.images ? "Saving" : "Ready";
  put($("state"), `${doing}, ${plural(workers.length, "worker")}, up ${span(status.uptime_s ?? 0)}`);
  put($("about"), `Luna Farm ${status.version ?? ""}, process ${status.pid ?? ""}, PNG by ${status.encoders?.png ?? "library"}`);
  document.title = queue.images ? `${queue.images} queued · Luna Farm` : "Luna Farm";
  $("empty").hidden = (totals.jobs ?? 0) > 0 || results.any;
}
function drawWorkers() {
  const rows = [{ pid: status.pid, state: "supervisor", ...status.supervisor }, ...(status.workers ?? [])];
  show($("workers"), JSON.stringify(rows), () => rows.map((row) => {
    const cell = (label, ...content) => { const node = make("td", "", ...content); node.dataset.label = label; return node; };
    const head = make("th", "", String(row.pid));
    head.scope = "row";
    const doing = row.current ? make("span", "doing", fileName(row.current.path ?? ""), make("small", "", ` job ${row.current.job_id}`)) : make("span", "faint", row.state === "idle" ? "waiting for work" : "");
    const cpu = row.cpu_percent ?? 0;
    const node = make("tr", "", head,
      cell("State", make("span", `dot ${row.state}`, row.state)),
      cell("CPU", bar(cpu / 100, `${Math.round(cpu)} percent`), make("span", "num", `${Math.round(cpu)} %`)),
      cell("Memory", bytes(row.own_bytes || row.rss_bytes || 0)),
      cell("Saved", row.images_saved === undefined ? "" : whole.format(row.images_saved)),
      cell("Speed", row.mb_per_s === undefined ? "" : `${row.mb_per_s.toFixed(1)} MB/s`),
      cell("Doing now", doing));
    node.title = `${row.threads ?? "?"} threads, ${row.open_files ?? "?"} open files, up ${span(row.uptime_s ?? 0)}`;
    return node;
  }));
}
// What a person should look at: failed images, what is failing now, and notes of the farm. The figure counts these.
function troubles() {
  const letters = status.dead_letters ?? [];
  // The status is the truth; an event that is newer than it adds what it does not say yet.
  const known = new Set(letters.map(keyOf));
  for (const [key, event] of failures) if (event.seq <= statusSeq && !known.has(key)) failures.delete(key);
  const rows = new Map(failures);
  for (const letter of letters) if (!trials.has(keyOf(letter))) rows.set(keyOf(letter), { ...letter, ...rows.get(keyOf(letter)) });
  const failing = (list, name) => (list ?? []).filter((row) => row.state === "failing").map((row) => ({
    kind: `failing ${name}`, error: `${row.path ?? row.destination} fails for ${span(row.since_s ?? 0)}: ${row.error}`, hint: "What goes there waits, and is saved once it works.",
  }));
  return [
    ...[...rows.values()].reverse().map((row) => ({ ...row, kind: "failed image" })),
    ...(status.incomplete_jobs ?? []).map((row) => ({ ...row, kind: "incomplete job", error: `${row.images} of ${plural(row.num_images, "image")} not saved: ${row.error}` })),
    ...failing(status.folders, "folder"), ...failing(status.destinations, "destination"),
    ...(status.notes ?? []).map((note) => ({ kind: "note", error: note })),
  ];
}
function drawTrouble() {
  const list = [...[...trials.values()].map((trial) => ({ ...trial.row, kind: "trial", trial })), ...troubles()];
  const few = showAll ? list.slice(0, FAILURES) : list.slice(0, FAILURES_AT_ONCE);
  $("trouble-none").hidden = list.length > 0;
  $("trouble-more").hidden = list.length <= FAILURES_AT_ONCE;
  put($("trouble-more"), showAll ? "Show fewer" : `Show all ${list.length}`);
  $("trouble-more").setAttribute("aria-expanded", String(showAll));
  show($("trouble"), JSON.stringify(few.map((row) => [row.kind, row.job_id, row.index, row.error, row.trial?.text])), () => few.map(troubleRow));
}
function troubleRow(row) {
  const image = row.kind === "failed image" || row.kind === "trial";
  const job = row.kind === "incomplete job";
  const facts = image || job ? [`Job ${row.job_id}`, row.path && fileName(row.path), row.code, row.timestamp && clock(row.timestamp)] : [row.hint];
  const answer = make("span", "answer faint", row.trial?.text ?? "");
  const acts = row.kind === "trial" ? [button("Hide", `Hide ${about(row)}`, () => { trials.delete(keyOf(row)); dirty = true; }, "quiet")]
    : image ? [button("Retry", `Retry ${about(row)}`, (node) => retry(row, node)), button("Dismiss", `Dismiss ${about(row)}`, (node) => dismiss(row, node), "quiet")]
      : job ? [button("Dismiss", `Dismiss job ${row.job_id}`, (node) => dismissJob(row, node), "quiet")] : [];
  return make("li", row.trial?.state === "saved" ? "well" : row.kind === "note" ? "calm" : "",
    make("div", "what", make("strong", "", row.error || "No reason was given."), make("p", "faint", facts.filter(Boolean).join(", "))),
    ...(image || job ? [make("div", "act", ...acts, answer)] : []));
}
function drawJobs() {
  const jobs = status.open_jobs ?? [];
  $("queue").hidden = jobs.length === 0;
  show($("jobs"), JSON.stringify(jobs), () => jobs.map((job) => make("li", "calm",
    make("div", "what", make("strong", "", `Job ${job.job_id}`), make("p", "faint", `${job.state}, ${whole.format(job.unfinished)} of ${plural(job.num_images, "image")} left`)),
    make("div", "act", button("Cancel", `Cancel job ${job.job_id}`, (node) => cancel(job, node), "quiet"), make("span", "answer faint")))));
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
  drawJobs();
  drawWorkers();
  drawTrouble();
  results.draw();
  drawFolders();
  for (const chart of charts) chart.draw(farmNow);
}

// --- start

startTheme();
await login.start();
link.open();
requestAnimationFrame(draw);
