// Tiles of thousands of images, of which only those near the screen exist. Knows ids and days, not what an image is.
import { make, whole } from "/dom.js";

const HEADING = 44;
const AHEAD = 0.75; // screens above and below that are kept ready
const dayOf = (id) => { const at = new Date(id); return new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime(); };
const long = new Intl.DateTimeFormat("en", { weekday: "long", day: "numeric", month: "long", year: "numeric" });
export const dayName = (day) => {
  const ago = Math.round((dayOf(Date.now()) - day) / 86_400_000);
  return ago === 0 ? "Today" : ago === 1 ? "Yesterday" : long.format(day);
};

export class Grid {
  // build: id -> node of a tile; needed: called with the ids near the screen; moved: with the day at its top;
  // bar: pixels at the top of the screen that something else covers.
  constructor(host, { build, needed, moved, bar }) {
    Object.assign(this, { host, build, needed, moved, bar, days: true });
    this.list = host.querySelector("[role=list]"); // headings of days stand beside it
    this.ids = [];
    this.groups = [];
    this.tiles = new Map(); // index -> node
    this.heads = new Map(); // group -> node
    this.at = 0;
    this.due = false;
    addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => { if (this.host.clientWidth !== this.width) this.layOut(); }).observe(host);
    host.addEventListener("keydown", (key) => this.key(key));
    host.addEventListener("focusin", (event) => {
      const index = Number(event.target.closest("[data-index]")?.dataset.index ?? -1);
      if (index >= 0) this.mark(index);
    });
  }

  // Show other ids, the newest first. `days`: in groups by day.
  show(ids, days) {
    const focused = this.host.contains(document.activeElement) ? this.ids[this.at] : undefined;
    this.ids = ids;
    this.days = days;
    this.at = Math.min(this.at, Math.max(0, ids.length - 1));
    this.clear();
    this.layOut();
    if (focused === undefined) return;
    const index = ids.indexOf(focused);
    this.focus(index < 0 ? this.at : index); // the keyboard goes on where it was
  }

  clear() {
    for (const node of this.tiles.values()) node.remove();
    for (const node of this.heads.values()) node.remove();
    this.tiles.clear();
    this.heads.clear();
  }

  layOut() {
    this.width = this.host.clientWidth;
    const phone = this.width < 600;
    this.gap = phone ? 3 : 10;
    const least = phone ? 108 : 172;
    this.columns = Math.max(phone ? 3 : 2, Math.floor((this.width + this.gap) / (least + this.gap)));
    this.side = (this.width - this.gap * (this.columns - 1)) / this.columns;
    this.groups = [];
    let top = 0, first = 0;
    while (first < this.ids.length) {
      const day = this.days ? dayOf(this.ids[first]) : null;
      let end = first + 1;
      if (this.days) while (end < this.ids.length && this.ids[end] >= day) end += 1;
      else end = this.ids.length;
      const rows = Math.ceil((end - first) / this.columns);
      const head = this.days ? HEADING : 0;
      const height = head + rows * (this.side + this.gap) + (this.days ? 8 : 0);
      this.groups.push({ day, first, end, top, head, height });
      top += height;
      first = end;
    }
    this.host.style.height = `${Math.ceil(top)}px`;
    for (const [index, node] of this.tiles) this.place(index, node);
    for (const [group, node] of this.heads) if (!this.groups.includes(group)) { node.remove(); this.heads.delete(group); }
    this.draw();
  }

  groupOf(index) {
    let low = 0, high = this.groups.length - 1;
    while (low < high) { const middle = (low + high + 1) >> 1; if (this.groups[middle].first <= index) low = middle; else high = middle - 1; }
    return this.groups[low];
  }

  place(index, node) {
    const group = this.groupOf(index);
    const [row, column] = [Math.floor((index - group.first) / this.columns), (index - group.first) % this.columns];
    const step = this.side + this.gap;
    node.style.width = node.style.height = `${this.side}px`;
    node.style.transform = `translate(${column * step}px, ${group.top + group.head + row * step}px)`;
  }

  later() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.draw(); });
  }

  draw() {
    const offset = this.host.getBoundingClientRect().top;
    const [from, to] = [-offset - innerHeight * AHEAD, -offset + innerHeight * (1 + AHEAD)];
    const wanted = new Set(), heads = new Set(), onScreen = [];
    let day = null;
    for (const group of this.groups) {
      if (group.top + group.height < from) continue;
      if (group.top > to) break;
      if (group.top <= -offset + this.bar()) day = group.day;
      if (this.days) heads.add(group);
      const step = this.side + this.gap, top = group.top + group.head;
      const low = group.first + Math.max(0, Math.floor((from - top) / step)) * this.columns;
      const high = Math.min(group.end, group.first + Math.max(0, Math.ceil((to - top) / step)) * this.columns);
      for (let index = low; index < high; index += 1) wanted.add(index);
    }
    for (const [index, node] of this.tiles) if (!wanted.has(index) && !node.contains(document.activeElement)) { node.remove(); this.tiles.delete(index); }
    for (const [group, node] of this.heads) if (!heads.has(group)) { node.remove(); this.heads.delete(group); }
    for (const group of heads) if (!this.heads.has(group)) this.addHead(group);
    const fresh = [];
    for (const index of wanted) {
      onScreen.push(this.ids[index]);
      if (!this.tiles.has(index)) fresh.push(this.add(index));
    }
    this.list.append(...fresh);
    this.needed(onScreen);
    this.moved(day);
  }

  addHead(group) {
    const node = make("h2", "", dayName(group.day), make("small", "faint", whole.format(group.end - group.first)));
    node.style.transform = `translateY(${group.top + 10}px)`;
    this.heads.set(group, node);
    this.host.append(node);
  }

  add(index) {
    const node = this.build(this.ids[index]);
    node.dataset.index = index;
    node.setAttribute("aria-setsize", this.ids.length);
    node.setAttribute("aria-posinset", index + 1);
    node.firstElementChild.tabIndex = index === this.at ? 0 : -1;
    this.place(index, node);
    this.tiles.set(index, node);
    return node;
  }

  // One tile is in the order of the Tab key; arrows move among the rest.
  mark(index) {
    const before = this.tiles.get(this.at);
    if (before) before.firstElementChild.tabIndex = -1;
    this.at = index;
    const now = this.tiles.get(index);
    if (now) now.firstElementChild.tabIndex = 0;
  }

  focus(index) {
    index = Math.max(0, Math.min(this.ids.length - 1, index));
    if (this.ids.length === 0) return;
    const group = this.groupOf(index);
    const top = group.top + group.head + Math.floor((index - group.first) / this.columns) * (this.side + this.gap);
    const view = this.host.getBoundingClientRect().top;
    const bar = this.bar();
    if (view + top < bar) scrollBy(0, view + top - bar);
    else if (view + top + this.side > innerHeight - 12) scrollBy(0, view + top + this.side - innerHeight + 12);
    this.mark(index);
    this.draw();
    this.tiles.get(index)?.firstElementChild.focus({ preventScroll: true });
  }

  key(event) {
    const screen = Math.max(1, Math.floor(innerHeight / (this.side + this.gap))) * this.columns;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: screen, PageUp: -screen, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.focus(this.at + step);
  }
}
