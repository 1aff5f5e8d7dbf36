// A line at the bottom of the page while images are being saved: how many, and that the tab may be closed.
import { api } from "../../scripts/api.js";
import { text } from "./luna_text.js";
import { ended } from "./luna_runs.js";

const LASTING_MS = 400; // what is saved sooner is not worth a line

const pending = new Map(); // job id -> images that are still to be saved
let element = null;
let timer = 0;

api.addEventListener("executed", ({ detail }) => {
  for (const job of detail?.output?.luna_farm ?? []) note(job);
});
api.addEventListener("luna_farm.job", ({ detail }) => note(detail));
// A reloaded page learns of its jobs by this.
api.addEventListener("luna_farm.queue", ({ detail }) => note({ ...detail, state: "queued" }));
// ComfyUI was restarted: the farm goes on saving, but it is not reported here.
api.addEventListener("reconnected", () => {
  pending.clear();
  show();
});

const over = new Set(); // ended jobs whose first message may be late
const REMEMBERED = 500;

function note(job) {
  if (ended(job)) {
    over.add(job.job_id);
    if (over.size > REMEMBERED) over.delete(over.values().next().value);
    pending.delete(job.job_id);
  } else if (!over.has(job.job_id)) pending.set(job.job_id, job.left ?? job.images);
  if (pending.size && !element?.isConnected) timer ||= setTimeout(show, LASTING_MS);
  else show();
}

function show() {
  timer = clearTimeout(timer) ?? 0;
  const count = [...pending.values()].reduce((total, images) => total + images, 0);
  if (!count) return element?.remove();
  element ??= made();
  element.textContent = text("pending", { count });
  if (!element.isConnected) document.body.append(element);
}

function made() {
  const line = document.createElement("div");
  line.id = "luna-farm-pending";
  line.setAttribute("role", "status");
  Object.assign(line.style, {
    position: "fixed", bottom: "12px", left: "50%", transform: "translateX(-50%)", zIndex: 900, pointerEvents: "none",
    font: "12px sans-serif", color: "#eee", background: "#222c", border: "1px solid #555", borderRadius: "6px",
    padding: "4px 12px",
  });
  return line;
}
