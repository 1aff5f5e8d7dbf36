// The words of the scripts beside this one: English here, other languages from locales/<language>/main.json by way of
// ComfyUI's /i18n route. Must never fail: a missing translation shows English.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const english = {
  idle: "No images yet",
  saving: "Saving {count}…",
  queue: "queue {images}",
  saved: "{count} saved",
  rejected: "{count} rejected",
  failed: "{count} failed",
  refused: "Not taken over",
  toastFailed: "Images not saved",
  toastRejected: "Images set aside by the quality gate",
  pending: "Luna Farm: images still to save: {count}. You may close this tab.",
  replace: "Replace by Luna saver",
  gallery: "Show in Luna Farm's gallery",
};

let translated = {};

export async function loadTexts() {
  try {
    const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    const all = await (await api.fetchApi("/i18n")).json();
    translated = all[language]?.lunaFarm ?? {};
  } catch (error) {
    console.warn("Luna Farm: no translations", error);
  }
}

export function text(key, values = {}) {
  const pattern = translated[key] ?? english[key];
  return pattern.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
