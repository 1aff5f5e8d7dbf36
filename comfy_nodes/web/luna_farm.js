// What the savers show: pictures only once their files exist, the queue and the last result in a line on the node, a
// badge and a toast with the reason when something was not saved. Counterpart: comfy_nodes/previews.py.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { loadTexts, text } from "./luna_text.js";

const SAVERS = new Set(["LunaDaemonImageSaver", "LunaMultiSaver"]);
const SLOTS = [1, 2, 3, 4, 5];
const COLOURS = { idle: "#888", busy: "#e0b050", good: "#70c070", warn: "#e0b050", bad: "#e06060" };
const SHOWN_BY_BROWSERS = /\.(png|webp|jpe?g|avif)$/i;
const REMEMBERED = 500;
const TOAST_MS = 12000;

// Job id -> how it ended, for the case that the end overtakes the node's own message.
const ended = new Map();

// ComfyUI would show the reserved names at once, as broken pictures. A capturing listener comes before its own.
api.addEventListener("executed", keepBack, { capture: true });
api.addEventListener("luna_farm.job", ({ detail }) => jobEnded(detail));
api.addEventListener("luna_farm.queue", ({ detail }) => showQueue(detail));

function keepBack({ detail }) {
  const jobs = detail?.output?.luna_farm;
  if (!jobs) return; // another node's, or the merging message that brings the pictures
  const known = jobs.map((job) => ended.get(job.job_id) ?? job);
  const images = known.flatMap((job) => job.pictures ?? []).filter((image) => SHOWN_BY_BROWSERS.test(image.filename));
  detail.output = { ...detail.output, images };
  const node = nodeOf(detail.display_node ?? detail.node);
  if (node) showJobs(node, known);
  // What was over at once, saved in ComfyUI's process or refused; a result from the cache is not told twice.
  for (const job of jobs.filter(({ state, job_id: id }) => state !== "queued" && !ended.has(id))) {
    remember(job);
    announceTrouble(job, node);
  }
}

function remember(job) {
  if (!job.job_id) return; // refused: there is no job
  ended.set(job.job_id, job);
  if (ended.size > REMEMBERED) ended.delete(ended.keys().next().value);
}

function jobEnded(job) {
  remember(job);
  const node = nodeOf(job.display_node);
  if (node) showJobs(node, [job]);
  announceTrouble(job, node);
  dirty();
}

function showJobs(node, jobs) {
  const open = jobs.filter((job) => job.state === "queued");
  const sum = (field) => jobs.reduce((total, job) => total + (job[field] ?? 0), 0);
  const failed = sum("failed");
  const rejected = sum("discarded");
  const parts = [];
  if (open.length) parts.push(text("saving", { count: open.reduce((total, job) => total + job.images, 0) }));
  if (sum("saved")) parts.push(text("saved", { count: sum("saved") }));
  if (rejected) parts.push(text("rejected", { count: rejected }));
  const trouble = jobs.some(({ state }) => state === "refused") ? text("refused") : text("failed", { count: failed });
  if (failed) parts.push(trouble);
  const queue = jobs.find((job) => job.queue)?.queue;
  if (queue?.images) parts.push(text("queue", queue));
  const mood = failed ? "bad" : rejected ? "warn" : open.length ? "busy" : "good";
  const reasons = jobs.flatMap((job) => job.reasons ?? []);
  setLine(node, parts.join(" · "), mood, reasons.join("\n"));
  setBadge(node, failed ? trouble : rejected ? text("rejected", { count: rejected }) : "", mood);
  if (!open.length && !jobs.some((job) => job.pictures?.length)) removePreview(node);
}

// The pictures of an earlier run would look like those of one that brought none.
function removePreview(node) {
  const at = node.widgets?.findIndex(({ name }) => name === "$$canvas-image-preview") ?? -1;
  if (at >= 0) node.widgets.splice(at, 1)[0].onRemove?.();
  node.imgs = [];
}

function showQueue({ display_node: id, queue, images }) {
  const node = nodeOf(id);
  if (node) setLine(node, `${text("saving", { count: images })} · ${text("queue", queue)}`, "busy", "");
}

function announceTrouble(job, node) {
  if (!job.reasons?.length) return;
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
  Object.assign(element.style, {
    font: "12px sans-serif", whiteSpace: "nowrap", overflow: "hidden", textOverflow: "ellipsis", padding: "2px 14px",
  });
  const line = node.addDOMWidget("luna_farm", "luna_farm_line", element, {
    serialize: false, // not part of the prompt …
    margin: 2,
    getMinHeight: () => 24,
    getMaxHeight: () => 24,
  });
  line.serialize = false; // … nor of the workflow
  node.lunaLine = element;
  setLine(node, text("idle"), "idle", "");
}

function setLine(node, words, mood, reasons) {
  if (!node.lunaLine) return;
  node.lunaLine.textContent = words;
  node.lunaLine.title = reasons;
  node.lunaLine.style.color = COLOURS[mood];
  node.lunaLine.dataset.mood = mood;
}

function setBadge(node, words, mood) {
  if (!window.LGraphBadge) return;
  node.lunaBadge ??= addBadge(node);
  node.lunaBadge.text = words;
  node.lunaBadge.bgColor = COLOURS[mood];
}

function addBadge(node) {
  const badge = new window.LGraphBadge({ text: "", fgColor: "#101010" });
  node.badges.push(() => badge);
  return badge;
}

// Affix, format and subfolder of an image that is not connected say nothing: they show when it is.
function showConnected(node) {
  for (const slot of SLOTS.slice(1)) {
    const input = node.inputs?.find(({ name }) => name === `image_${slot}`);
    const hidden = input?.link == null;
    for (const name of ["affix", "format", "subdir"]) {
      const widget = node.widgets?.find((one) => one.name === `${name}_${slot}`);
      if (widget) setHidden(widget, hidden);
    }
  }
  const [, least] = node.computeSize();
  node.setSize([node.size[0], node.imgs?.length ? Math.max(node.size[1], least) : least]);
  dirty();
}

// The canvas reserves room for a hidden widget too, unless it says that it needs none (-4 is the gap between widgets).
function setHidden(widget, hidden) {
  widget.hidden = hidden;
  if (hidden) widget.computeSize = () => [0, -4];
  else delete widget.computeSize;
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
  nodeCreated(node) {
    if (!SAVERS.has(node.comfyClass)) return;
    addLine(node);
    // The frontend finds out that a picture needs room while it draws, and leaves drawing the larger node to chance.
    chain(node, "onResize", dirty);
    chain(node, "onConnectionsChange", () => showConnected(node));
    chain(node, "onConfigure", () => showConnected(node));
    showConnected(node);
  },
});
