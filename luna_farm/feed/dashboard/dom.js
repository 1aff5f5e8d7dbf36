// Words and nodes that every page of the dashboard uses. Every text goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

// --- words

export const whole = new Intl.NumberFormat("en");
export const ms = (value) => (value < 1 ? `${value.toFixed(2)} ms` : value < 100 ? `${value.toFixed(1)} ms` : value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
export const perSecond = (value) => (value < 10 ? value.toFixed(1) : whole.format(Math.round(value)));
export const bytes = (value) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
};
export const span = (seconds) => {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
};
export const clock = (iso) => { const at = new Date(iso); return isNaN(at) ? "" : at.toLocaleTimeString([], { hour12: false }); };
export const fileName = (path) => path.split(/[\\/]/).at(-1);
export const plural = (count, word) => `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;

// --- nodes

export const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
export const make = (tag, className, ...children) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
};
export const button = (text, label, click, className = "") => {
  const node = make("button", className, text);
  node.type = "button";
  if (label) node.setAttribute("aria-label", label);
  node.addEventListener("click", () => click(node));
  return node;
};
export const say = (text) => put($("say"), text);
export const bar = (share, label) => {
  const node = make("span", "bar");
  node.style.setProperty("--share", String(Math.max(0, Math.min(1, share))));
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", label);
  return node;
};
// Replace the children only if what they show has changed, so that focus and selection stay.
const shown = new WeakMap();
export const show = (host, key, build) => {
  if (shown.get(host) === key) return;
  shown.set(host, key);
  host.replaceChildren(...build());
};

// --- theme: system, light, dark; kept in this browser

const THEMES = ["system", "light", "dark"];
const KEPT = "luna-farm-theme";
function useTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  put($("theme"), `Theme: ${theme}`);
  localStorage.setItem(KEPT, theme);
}
export function startTheme() {
  $("theme").addEventListener("click", () => useTheme(THEMES[(THEMES.indexOf(localStorage.getItem(KEPT)) + 1) % 3]));
  useTheme(THEMES.includes(localStorage.getItem(KEPT)) ? localStorage.getItem(KEPT) : "system");
}
