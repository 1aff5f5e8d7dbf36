// What the savers show: images only once their files exist, the queue and the last result in a line on the node, a
// badge and a toast with the reason when something was not saved. Counterpart: comfy_nodes/previews.py.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Runs, ended } from "./luna_runs.js";
import { loadTexts, text } from "./luna_text.js";
import { arrange, isArranged, resize } from "./luna_widgets.js";

const SAVERS = new Set(["LunaDaemonImageSaver", "LunaMultiSaver"]);
const STACK = "LunaImageStack";
const COLOURS = { idle: "#888", busy: "#e0b050", good: "#70c070", warn: "#e0b050", bad: "#e06060" };
const SHOWN_BY_BROWSERS = /\.(png|webp|jpe?g|avif)$/i;
const TOAST_MS = 12000;
const TOLD = 500;
const MOST_LINES = 5;

const runs = new Map(); // workflow and execution id of the node that shows them -> Runs
const told = new Set(); // jobs whose trouble was announced

// ComfyUI would show the reserved names at once, as broken images. A capturing listener comes before its own.
api.addEventListener("executed", onExecuted, { capture: true });
api.addEventListener("luna_farm.job", ({ detail }) => onEnd(detail));
api.addEventListener("luna_farm.queue", ({ detail }) => onQueue(detail));

// Twice for each job: when its node ran, and with `job_id` when the job ended. Each replaces what the node showed.
function onExecuted(event) {
  const { detail } = event;
  const jobs = detail?.output?.luna_farm;
  if (!jobs?.length) return; // another package's node
  const id = String(detail.display_node ?? detail.node);
  const shown = runsOf(jobs[0].workflow, id);
  if (!detail.job_id) shown.begin(detail, jobs);
  else {
    const isNews = jobs.map((job) => shown.end(detail, job)).some(Boolean);
    const isShown = isOpen(jobs[0].workflow);
    if (isNews && !isShown) shown.missed = detail;
    if (!isNews || !isShown) return event.stopImmediatePropagation();
  }
  const images = shown.images().filter(({ filename }) => SHOWN_BY_BROWSERS.test(filename));
  detail.output = { ...detail.output, images };
  jobs.forEach((job) => announceTrouble(job, nodeOf(id)));
  setTimeout(() => show(jobs[0].workflow, id)); // once ComfyUI has taken the message
}

function onEnd(job) {
  const id = String(job.display_node ?? job.node);
  runsOf(job.workflow, id).end(job, job);
  announceTrouble(job, nodeOf(id));
  show(job.workflow, id);
}

function onQueue(job) {
  const id = String(job.display_node);
  if (runsOf(job.workflow, id).wait(job, { ...job, state: "queued" })) show(job.workflow, id);
}

// Nodes are made anew when their workflow is opened again, or a change of it is taken back.
function restore() {
  for (const [key, known] of runs) {
    const [workflow, id] = key.split("/");
    const node = workflow && isOpen(workflow) ? nodeOf(id) : null;
    if (!SAVERS.has(node?.comfyClass)) continue;
    known.node = node;
    const { missed: detail } = known;
    known.missed = null;
    if (detail) api.dispatchEvent(new CustomEvent("executed", { detail }));
    else show(workflow, id);
  }
}

function runsOf(workflow, id) {
  const key = `${workflow}/${id}`;
  if (!runs.has(key)) runs.set(key, new Runs());
  const found = runs.get(key);
  const node = nodeOf(id);
  if (node && found.node && node !== found.node) found.forgetEnded(); // another node has got this id
  found.node = node ?? found.node;
  return found;
}

// Nodes of two workflows may have the same id: what ends late belongs to the one that is not open any more.
function isOpen(workflow) {
  const open = (app.rootGraph ?? app.graph)?.id;
  return !workflow || !open || workflow === open;
}

function show(workflow, id) {
  const node = nodeOf(id);
  if (!isOpen(workflow) || !SAVERS.has(node?.comfyClass)) return;
  const shown = runsOf(workflow, id);
  showJobs(node, shown.newest);
  node.lunaGallery = shown.newest.map(({ gallery }) => gallery).findLast(isReachable);
  node.lunaShown = new Set(shown.images().map(({ filename }) => filename));
  if (!node.lunaShown.size && shown.newest.every(ended)) removePreview(node);
  dirty();
}

function showJobs(node, jobs) {
  const open = jobs.filter((job) => !ended(job));
  const sum = (field) => jobs.reduce((total, job) => total + (job[field] ?? 0), 0);
  const failed = sum("failed");
  const rejected = sum("discarded");
  const parts = [];
  if (open.length) parts.push(text("saving", { count: leftOf(open) }));
  if (sum("saved")) parts.push(text("saved", { count: sum("saved") }));
  if (rejected) parts.push(text("rejected", { count: rejected }));
  const trouble = jobs.some(({ state }) => state === "refused") ? text("refused") : text("failed", { count: failed });
  if (failed) parts.push(trouble);
  const queue = jobs.find((job) => job.queue)?.queue;
  if (queue?.images) parts.push(text("queue", queue));
  const reasons = jobs.flatMap((job) => job.reasons ?? []);
  const warnings = jobs.flatMap((job) => job.warnings ?? []);
  const mood = failed ? "bad" : rejected || warnings.length ? "warn" : open.length ? "busy" : "good";
  if (failed) parts.push(reasons[0] ?? "");
  else if (warnings.length) parts.push(warnings[0]);
  setLine(node, parts.join(" · "), mood, [...reasons, ...warnings].join("\n"));
  setBadge(node, failed ? trouble : rejected ? text("rejected", { count: rejected }) : "", mood);
}

// The gallery of a farm on this machine opens only in a browser of this machine.
function isReachable(address) {
  const here = (name) => ["127.0.0.1", "localhost", "[::1]"].includes(name);
  return Boolean(address) && (here(location.hostname) || !here(new URL(address).hostname));
}

function addMenu(node) {
  chain(node, "getExtraMenuOptions", (_, options) => options.unshift({
    content: text("gallery"),
    disabled: !node.lunaGallery,
    callback: () => window.open(node.lunaGallery, "_blank", "noopener"),
  }));
}

// How many images of open jobs are still to be saved.
function leftOf(jobs) {
  return jobs.reduce((total, { left, images }) => total + (left ?? images), 0);
}

// The frontend loads the images of every result, and those of an older one may come last: have it look again.
function checkImages(node) {
  if (!node.lunaShown?.size || !node.imgs?.length || node.imgs === node.lunaImages) return;
  node.lunaImages = node.imgs;
  const names = node.imgs.map(({ src }) => new URL(src, location).searchParams.get("filename"));
  if (!names.some((name) => name && !node.lunaShown.has(name))) return;
  node.images = null;
  setTimeout(dirty); // it looks while it draws, and this is called by a drawing
}

// The images of an earlier run would look like those of one that brought none, and so would their room.
function removePreview(node) {
  const at = node.widgets?.findIndex(({ name }) => name === "$$canvas-image-preview") ?? -1;
  if (at >= 0) node.widgets.splice(at, 1)[0].onRemove?.();
  if (!node.imgs?.length) return;
  node.imgs = [];
  resize(node);
}

// Once for each job, however often its result comes (from the cache it does).
function announceTrouble(job, node) {
  const key = job.job_id || job.number;
  if (!job.reasons?.length || told.has(key)) return;
  told.add(key);
  if (told.size > TOLD) told.delete(told.values().next().value);
  const failed = job.failed > 0;
  app.extensionManager?.toast?.add({
    severity: failed ? "error" : "warn",
    summary: `${node?.title ?? "Luna Farm"}: ${text(failed ? "toastFailed" : "toastRejected")}`,
    detail: job.reasons.join("\n"),
    life: TOAST_MS,
  });
}

// The id of an execution inside subgraphs is a path, "12:5".
function nodeOf(id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}

function dirty() {
  app.graph?.setDirtyCanvas(true, true);
}

function addLine(node) {
  const element = document.createElement("div");
  element.className = "luna-farm-line";
  Object.assign(element.style, { font: "12px/16px sans-serif", overflow: "hidden", padding: "2px 8px" });
  const words = element.appendChild(document.createElement("span")); // as large as its words, wherever it stands
  Object.assign(words.style, { display: "inline-block", padding: "0 6px", borderRadius: "6px" });
  const height = () => 8 + 16 * linesOf(node);
  const line = node.addDOMWidget("luna_farm", "luna_farm_line", element, {
    serialize: false, // not part of the prompt …
    margin: 2,
    getMinHeight: height,
    getMaxHeight: height,
  });
  line.serialize = false; // … nor of the workflow
  node.lunaLine = words;
  setLine(node, text("idle"), "idle", "");
}

// A reason is a sentence: it gets as many lines as it needs, about seven units of the canvas a character.
function linesOf(node) {
  const words = node.lunaLine?.textContent.length ?? 0;
  return Math.min(MOST_LINES, Math.max(1, Math.ceil((words * 7) / Math.max(100, node.size[0] - 32))));
}

function setLine(node, words, mood, reasons) {
  const line = node.lunaLine;
  if (!line) return;
  const before = linesOf(node);
  line.textContent = words;
  line.title = reasons;
  const badge = window.LiteGraph.vueNodesMode && ["warn", "bad"].includes(mood);
  const [color, background] = badge ? ["#101010", COLOURS[mood]] : [COLOURS[mood], ""];
  Object.assign(line.style, { color, background });
  line.dataset.mood = mood;
  if (linesOf(node) !== before) resize(node);
}

// For the canvas. Vue nodes draw a badge when the node is made and not again: there the line itself is one.
function setBadge(node, words, mood) {
  if (!window.LGraphBadge) return;
  node.lunaBadge ??= addBadge(node);
  node.lunaBadge.text = window.LiteGraph.vueNodesMode ? "" : words;
  node.lunaBadge.bgColor = COLOURS[mood];
}

function addBadge(node) {
  const badge = new window.LGraphBadge({ text: "", fgColor: "#101010" });
  node.badges.push(() => badge);
  return badge;
}

function chain(node, method, after) {
  const before = node[method];
  node[method] = function (...args) {
    const result = before?.apply(this, args);
    after.call(this, ...args);
    return result;
  };
}

app.registerExtension({
  name: "LunaFarm.Savers",
  init: loadTexts,
  afterConfigureGraph: () => setTimeout(restore), // once ComfyUI has its own results back
  nodeCreated(node) {
    const isSaver = SAVERS.has(node.comfyClass);
    if (!isSaver && node.comfyClass !== STACK) return;
    if (isSaver) {
      addLine(node);
      addMenu(node);
      // The frontend finds out that an image needs room while it draws, and leaves drawing the larger node to chance.
      chain(node, "onResize", dirty);
      chain(node, "onDrawBackground", () => checkImages(node));
    }
    chain(node, "onDrawBackground", () => {
      if (!isArranged(node)) arrange(node);
    });
    chain(node, "onConnectionsChange", () => arrange(node));
    chain(node, "onConfigure", () => arrange(node));
    arrange(node);
  },
});
