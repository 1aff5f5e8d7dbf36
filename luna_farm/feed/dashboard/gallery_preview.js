// One image, large, with what is known of it. The page says which image is the next.
import { $, bytes, button, fileName, make, ms, put, say } from "/dom.js";

const SHOWN = new Set(["image/png", "image/jpeg", "image/webp", "image/avif", "image/gif"]);
const KEPT = 4; // files: this one, its neighbours, and the one before
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

export class Preview {
  // get: path -> Response, fetched with the session; turn: step -> shows a neighbour; find: filters -> searches; openFolder: row.
  constructor({ get, turn, find, openFolder, canOpen, closed }) {
    Object.assign(this, { get, turn, find, openFolder, canOpen, closed });
    this.dialog = $("preview");
    this.files = new Map(); // id -> promise of {url, type, name}
    this.id = null; // of the image that is shown
    $("previous").addEventListener("click", () => this.turn(-1));
    $("next").addEventListener("click", () => this.turn(1));
    $("preview-close").addEventListener("click", () => this.shut());
    $("copy-prompt").addEventListener("click", () => this.copy(this.row?.prompt, "Prompt"));
    $("copy-path").addEventListener("click", () => this.copy(this.row?.path, "Path"));
    $("open-folder").addEventListener("click", () => this.openFolder(this.row));
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); this.shut(); });
    this.dialog.addEventListener("close", () => this.dialog.open || this.shut()); // closed by the browser itself
    addEventListener("keydown", (event) => this.dialog.open && !event.target.closest("form") && this.key(event));
  }

  // At once: the browser tells of a closed dialog later, when a key may have moved the focus already.
  shut() {
    this.dialog.close();
    if (this.id === null) return;
    this.id = null;
    this.closed();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const does = {
      ArrowLeft: () => this.turn(-1), ArrowRight: () => this.turn(1),
      c: () => this.copy(this.row?.prompt, "Prompt"), p: () => this.copy(this.row?.path, "Path"), d: () => $("download").hidden || $("download").click(),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  // Show an image; `tile` is what the grid knows of it, `ends` which ends of the list it is at, `near` the ids beside it.
  async show(id, tile, { first, last, near }) {
    this.id = id;
    this.row = null;
    $("previous").disabled = first;
    $("next").disabled = last;
    put($("preview-name"), tile?.name ?? "");
    put($("preview-path"), "");
    $("preview-facts").replaceChildren();
    $("download").hidden = $("open-folder").hidden = true;
    $("copy-prompt").disabled = true;
    this.note("");
    this.picture(tile?.thumbnail ? `data:image/jpeg;base64,${tile.thumbnail}` : "", true, tile?.name ?? "");
    if (!this.dialog.open) this.dialog.showModal();
    const [row, file] = await Promise.all([this.facts(id), tile?.local && tile.state !== "failed" ? this.file(id) : null]);
    if (this.id !== id) return; // turned on
    if (row) this.fill(row);
    if (file?.url && SHOWN.has(file.type)) this.picture(file.url, false, `${fileName(row?.path ?? "")}${row?.prompt ? `: ${row.prompt.slice(0, 160)}` : ""}`);
    else this.note(file?.error ?? (file ? `Browsers do not show ${file.type.replace("image/", "").toUpperCase()}: this is its thumbnail.` : tile?.state === "failed" ? "It was not saved." : "The file is not on this machine."));
    if (file?.url) {
      Object.assign($("download"), { href: file.url, download: fileName(row?.path ?? "image"), hidden: false });
      for (const other of near) this.file(other);
    }
  }

  picture(source, soft, text) {
    const image = $("preview-image");
    image.classList.toggle("soft", soft);
    if (source) image.src = source; else image.removeAttribute("src");
    image.hidden = !source;
    image.alt = text;
  }

  note(text) {
    put($("preview-note"), text);
    $("preview-note").hidden = !text;
  }

  async facts(id) {
    const answer = await this.get(`/api/gallery/image?id=${id}`);
    if (answer.ok) return answer.json();
    this.note((await answer.text()).trim());
    return null;
  }

  file(id) {
    if (!this.files.has(id)) {
      this.files.set(id, this.get(`/api/gallery/file?id=${id}`).then(async (answer) => {
        if (!answer.ok) {
          this.files.delete(id); // asked for again with the next look: the farm or the file may be back by then
          return { error: (await answer.text()).trim() };
        }
        const blob = await answer.blob();
        return { url: URL.createObjectURL(blob), type: blob.type };
      }));
    }
    const file = this.files.get(id);
    this.files.delete(id);
    this.files.set(id, file); // the latest are kept
    if (this.files.size > KEPT) {
      const [oldest, gone] = this.files.entries().next().value;
      this.files.delete(oldest);
      gone.then(({ url }) => url && URL.revokeObjectURL(url));
    }
    return file;
  }

  fill(row) {
    this.row = row;
    put($("preview-name"), fileName(row.path));
    put($("preview-path"), row.path);
    $("copy-prompt").disabled = !row.prompt;
    $("open-folder").hidden = !this.canOpen() || row.is_url || row.state === "failed";
    const facts = [];
    const fact = (name, ...value) => facts.push(make("dt", "", name), make("dd", "", ...value));
    const text = (name, value) => value && facts.push(make("dt", "wide", name), scrolled(name, value));
    const search = (label, filters) => button(label, "", () => this.find(filters), "link");
    if (row.error) text("Why it failed", row.error);
    if (row.width) fact("Size", `${row.width} × ${row.height} ${row.format}, ${bytes(row.bytes)}`);
    if (row.saved_at) fact(row.state === "failed" ? "Failed" : "Saved", moment.format(row.saved_at * 1000));
    if (row.state === "discarded") fact("Gate", `rejected: ${row.gate_score?.toFixed(2)} below ${row.gate_threshold?.toFixed(2)}`);
    else if (row.gate_score !== null) fact("Gate", row.gate_score.toFixed(2));
    if (row.model) fact("Model", search(row.model, { model: row.model }));
    if (row.loras.length) fact("LoRAs", row.loras.join(", "));
    if (row.seed !== null) fact("Seed", search(row.seed, { seed: row.seed }));
    const sampling = [row.sampler, row.scheduler, row.steps !== null && `${row.steps} steps`, row.cfg !== null && `CFG ${row.cfg}`].filter(Boolean);
    if (sampling.length) fact("Sampler", sampling.join(", "));
    if (row.affix) fact("Affix", row.affix);
    if (row.job_id) fact("Job", search(row.job_id, { job: row.job_id }), `, image ${row.index}`);
    const scores = [["variance", row.variance], ["edges", row.edge_density], ["clipped", row.clipped]].filter(([, value]) => value !== null);
    if (scores.length) fact("Scores", scores.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ") + (row.blank ? ", blank" : "") + (row.nan_count ? `, ${row.nan_count} NaN` : ""));
    if (row.phash && !row.blank) fact("Alike", search("find near duplicates", { similar: row.phash }));
    if (row.ms) fact("Took", ms(row.ms));
    text("Prompt", row.prompt);
    text("Negative prompt", row.negative);
    text("Custom metadata", row.custom);
    text("Warnings", row.warnings.join("\n"));
    $("preview-facts").replaceChildren(...facts);
  }

  copy(value, what) {
    if (!value) return say(`There is no ${what.toLowerCase()}.`);
    const node = what === "Path" ? $("copy-path") : $("copy-prompt");
    navigator.clipboard.writeText(value).then(() => {
      say(`${what} copied.`);
      put(node, "Copied");
      setTimeout(() => put(node, `Copy ${what.toLowerCase()}`), 1500);
    }, () => say(value));
  }
}

// A text that may be long, and is reached by the keyboard when it scrolls.
function scrolled(name, value) {
  const node = make("div", "text", value);
  node.tabIndex = 0;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", name);
  return make("dd", "wide", node);
}
