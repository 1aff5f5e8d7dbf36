// Small line charts over the last two minutes, one value a second. SVG, no colours of its own: style.css has them.

const SECONDS = 120;
const WIDTH = 480;
const HEIGHT = 120;
const TOP = 8;
const BRIDGED = 4;
const NS = "http://www.w3.org/2000/svg";

const svg = (tag, attributes) => {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const html = (tag, className, text = "") => {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
};

// The next of 1, 2, 5, 10, 20, ... that is not below `value`.
const ceiling = (value) => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.9999);
};

// Values by second: `add` sums, `mean` averages, `last` keeps the newest. Seconds older than the window fall out.
export class Series {
  constructor(kind) {
    this.kind = kind;
    this.cells = new Map();
  }

  put(ms, value) {
    const second = Math.floor(ms / 1000);
    const cell = this.cells.get(second) ?? { sum: 0, count: 0, last: 0 };
    cell.sum += value;
    cell.count += 1;
    cell.last = value;
    this.cells.set(second, cell);
    if (this.cells.size > SECONDS + 30) {
      for (const key of this.cells.keys()) if (key < second - SECONDS - 5) this.cells.delete(key);
    }
  }

  // The value of one second; null: nothing was measured.
  at(second) {
    const cell = this.cells.get(second);
    if (this.kind === "add") return cell ? cell.sum : 0;
    if (!cell) return null;
    return this.kind === "mean" ? cell.sum / cell.count : cell.last;
  }
}

export class Chart {
  // lines: [{name, series, style}]; format turns a value into text. `stacked` draws each line on top of the one before.
  constructor(host, { title, lines, format, stacked = false, least = 1 }) {
    this.lines = lines;
    this.format = format;
    this.stacked = stacked;
    this.least = least;
    this.title = title;
    const head = html("div", "chart-head");
    this.value = html("output", "chart-value", "–");
    head.append(html("h3", "", title), this.value);
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: 0 });
    this.svg.append(
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: TOP, y2: TOP }),
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: (HEIGHT + TOP) / 2, y2: (HEIGHT + TOP) / 2 }),
      svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
    );
    this.shapes = lines.map(({ style }) => {
      const shape = { area: svg("path", { class: `area ${style}` }), line: svg("path", { class: `line ${style}` }) };
      this.svg.append(shape.area, shape.line);
      return shape;
    });
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg.append(this.cursor);
    this.scale = html("span", "chart-scale");
    const foot = html("div", "chart-foot");
    foot.append(html("span", "", "2 min ago"), this.legend(), html("span", "", "now"));
    const plot = html("div", "plot");
    plot.append(this.svg, this.scale);
    host.append(head, plot, foot);
    this.back = null; // seconds before now that the reader points at
    this.listen();
  }

  legend() {
    const list = html("span", "legend");
    if (this.lines.length > 1) list.append(...this.lines.map(({ name, style }) => html("span", `key ${style}`, name)));
    return list;
  }

  listen() {
    const point = (back) => {
      this.back = back === null ? null : Math.max(1, Math.min(SECONDS, back));
      this.draw(this.now);
    };
    this.svg.addEventListener("pointermove", (move) => {
      const box = this.svg.getBoundingClientRect();
      point(Math.round(SECONDS * (1 - (move.clientX - box.left) / box.width)));
    });
    this.svg.addEventListener("pointerleave", () => point(null));
    this.svg.addEventListener("blur", () => point(null));
    this.svg.addEventListener("keydown", (key) => {
      const step = { ArrowLeft: 1, ArrowRight: -1, PageUp: 10, PageDown: -10 }[key.key];
      if (!step) return;
      key.preventDefault();
      point((this.back ?? 0) + step);
    });
  }

  // now: milliseconds of the farm's clock. The second that still runs is not drawn.
  draw(now) {
    if (!now) return;
    this.now = now;
    const end = Math.floor(now / 1000) - 1;
    const columns = this.lines.map(({ series }) => Array.from({ length: SECONDS + 1 }, (_, i) => series.at(end - SECONDS + i)));
    const sums = columns[0].map(() => 0);
    const tops = columns.map((column) => column.map((value, i) => {
      if (value === null) return null;
      sums[i] = this.stacked ? sums[i] + value : value;
      return sums[i];
    }));
    const highest = ceiling(Math.max(this.least, ...tops.flat().map((value) => value ?? 0)));
    const x = (i) => ((i * WIDTH) / SECONDS).toFixed(1);
    const y = (value) => (HEIGHT - ((HEIGHT - TOP) * value) / highest).toFixed(1);
    tops.forEach((values, index) => {
      const runs = runsOf(values);
      const line = runs.map((run) => "M" + run.map(([i, value]) => `${x(i)} ${y(value)}`).join("L") + (run.length === 1 ? "h1.5" : ""));
      const area = runs.map((run) => `M${x(run[0][0])} ${HEIGHT}L` + run.map(([i, value]) => `${x(i)} ${y(value)}`).join("L") + `L${x(run.at(-1)[0])} ${HEIGHT}Z`);
      this.shapes[index].line.setAttribute("d", line.join(""));
      this.shapes[index].area.setAttribute("d", area.join(""));
    });
    this.scale.textContent = this.format(highest);
    this.tell(columns, x);
  }

  // Write what is pointed at, or the newest value, in words.
  tell(columns, x) {
    const newest = columns[0].findLastIndex((value) => value !== null);
    const index = this.back === null ? newest : SECONDS - this.back;
    const words = columns
      .map((column, i) => [this.lines[i].name, column[index]])
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => (columns.length > 1 ? `${name} ${this.format(value)}` : this.format(value)));
    const total = columns.reduce((sum, column) => sum + (column[index] ?? 0), 0);
    const text = words.length === 0 ? "–" : this.back === null && this.stacked ? this.format(total) : words.join(", ");
    this.value.textContent = this.back === null ? text : `${this.back} s ago: ${text}`;
    this.cursor.setAttribute("visibility", this.back === null ? "hidden" : "visible");
    this.cursor.setAttribute("x1", x(index));
    this.cursor.setAttribute("x2", x(index));
    this.svg.setAttribute("aria-label", `${this.title}: ${this.value.textContent}. Arrow keys read earlier values.`);
  }
}

// Split into stretches without holes: [[index, value], ...]. A few empty seconds are bridged, a pause is not.
const runsOf = (values) => {
  const runs = [];
  values.forEach((value, i) => {
    if (value === null) return;
    const last = runs.at(-1)?.at(-1)[0] ?? -Infinity;
    if (i - last <= BRIDGED + 1) runs.at(-1).push([i, value]);
    else runs.push([[i, value]]);
  });
  return runs;
};
