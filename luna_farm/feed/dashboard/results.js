// The last results: a tile for each image that was saved or rejected.
import { $, bar, bytes, clock, fileName, make, ms, say, show } from "/dom.js";

const RESULTS = 18;
const TRIES = 5; // a thumbnail is made once a worker has nothing better to do
const keyOf = (event) => `${event.job_id}/${event.index ?? 0}`;
const rejected = (event) => event.threshold !== undefined; // only a rejection tells the threshold

export class Results {
  constructor(login) {
    this.login = login;
    this.events = [];
    this.tiles = new WeakMap();
    this.tried = new WeakMap(); // event -> how often its thumbnail was asked for
    this.asking = false;
  }

  get any() { return this.events.length > 0; }

  // A rejected image that was kept in a file is told of twice: that makes one tile.
  add(event) {
    const [last] = this.events;
    const same = last && keyOf(last) === keyOf(event);
    this.events = [same ? { ...last, ...event } : event, ...this.events.slice(same ? 1 : 0)].slice(0, RESULTS);
  }

  // Few events bring a thumbnail, and none of those that came before the page: the others are asked for.
  async complete() {
    const lack = this.events.filter((event) => !event.thumbnail && (this.tried.get(event) ?? 0) < TRIES);
    if (!lack.length || this.asking || document.hidden) return;
    for (const event of lack) this.tried.set(event, (this.tried.get(event) ?? 0) + 1);
    this.asking = true;
    try {
      const headers = this.login.session ? { Authorization: `Bearer ${this.login.session}` } : {};
      const answer = await fetch(`/api/gallery/thumbnails?images=${lack.map(keyOf).join()}`, { headers, cache: "no-store" });
      if (!answer.ok) return;
      const { thumbnails } = await answer.json();
      for (const event of lack) {
        const found = thumbnails[keyOf(event)];
        if (!found) continue;
        event.thumbnail = found;
        this.tiles.get(event)?.querySelector(".frame").replaceChildren(image(event));
      }
    } catch { /* the farm is gone: the connection says so */ } finally {
      this.asking = false;
    }
  }

  draw() {
    $("results-none").hidden = this.any;
    show($("results"), this.events.map((event) => event.seq).join(), () => this.events.map((event) => {
      if (!this.tiles.has(event)) this.tiles.set(event, tile(event));
      return this.tiles.get(event);
    }));
  }
}

function image(event) {
  if (event.thumbnail) {
    const node = make("img");
    node.src = `data:image/jpeg;base64,${event.thumbnail}`;
    node.alt = "";
    return node;
  }
  return make("span", "blank", rejected(event) ? "rejected" : event.format ?? "");
}
function tile(event) {
  const copy = make("button", "frame", image(event));
  copy.type = "button";
  copy.title = `${event.path}\nCopy the path`;
  copy.setAttribute("aria-label", `Copy the path of ${fileName(event.path)}`);
  copy.addEventListener("click", () => navigator.clipboard.writeText(event.path).then(() => say("Path copied."), () => say(event.path)));
  const facts = rejected(event) ? `score ${event.score?.toFixed(2)} below ${event.threshold?.toFixed(2)}` : `${bytes(event.bytes ?? 0)}, ${ms(event.ms ?? 0)}`;
  const node = make("li", rejected(event) ? "rejected" : "", copy, make("span", "name", fileName(event.path)), make("span", "facts", facts));
  if (!rejected(event) && event.score !== null && event.score !== undefined) {
    node.append(make("span", "facts", bar(event.score, `gate score ${event.score.toFixed(2)}`), `gate ${event.score.toFixed(2)}`));
  }
  node.append(make("time", "facts", clock(event.timestamp)));
  return node;
}
