// Opens the workflow of a dropped JPEG, JPEG XL, TIFF, HEIC, OpenEXR or moving AVIF, and of the .json beside a JPEG whose
// workflow was too large for it. PNG, WebP and still AVIF are ComfyUI's own. A file that holds nothing goes to ComfyUI as if
// this were not here.
import { app } from "../../scripts/app.js";

const ASCII = 2;
const IMAGE_DESCRIPTION = 270;

app.registerExtension({
  name: "LunaFarm.Drop",
  init() {
    const load = app.handleFile;
    app.handleFile = async function (file, ...rest) {
      const { workflow, prompt } = await readGraph(file);
      const name = file.name.replace(/\.[^.]+$/, "");
      if (workflow) return this.loadGraphData(workflow, true, true, name);
      if (prompt) return this.loadApiJson(prompt, name);
      return load.call(this, file, ...rest);
    };
  },
});

export async function readGraph(file) {
  try {
    const name = file.name.toLowerCase();
    if (name.endsWith(".json")) return sidecar(JSON.parse(await file.text()));
    if (!/\.(jpe?g|jxl|tiff?|hei[cf]|exr|avif)$/.test(name) && file.type !== "image/jpeg") return {};
    const bytes = new Uint8Array(await file.arrayBuffer());
    return name.endsWith(".exr") ? exrGraph(bytes) : graphOf(entriesOf(bytes));
  } catch (error) {
    console.warn(`Luna Farm: no workflow in ${file.name}`, error);
    return {};
  }
}

// A workflow file of ComfyUI has `nodes` at its top; what we write beside a picture has `workflow` and `prompt`.
function sidecar(found) {
  const ours = found && !found.nodes && (found.workflow?.nodes || found.image_type !== undefined);
  return ours ? { workflow: found.workflow, prompt: found.prompt } : {};
}

function graphOf(texts) {
  const found = {};
  for (const [tag, value] of texts) {
    if (tag === IMAGE_DESCRIPTION && value.startsWith("{")) return sidecar(JSON.parse(value));
    const colon = value.indexOf(":");
    const key = value.slice(0, colon).toLowerCase();
    if (key === "workflow" || key === "prompt") found[key] = JSON.parse(value.slice(colon + 1));
  }
  return found;
}

// The attributes of an OpenEXR header: name, type, length, value, until an empty name.
function exrGraph(bytes) {
  const view = new DataView(bytes.buffer);
  const found = {};
  let at = 8;
  const text = (end = bytes.indexOf(0, at)) => {
    const read = new TextDecoder().decode(bytes.subarray(at, end));
    at = end + 1;
    return read;
  };
  while (bytes[at]) {
    const [name, type] = [text(), text()];
    const size = view.getUint32(at, true);
    at += 4;
    if (type === "string" && (name === "workflow" || name === "prompt"))
      found[name] = JSON.parse(new TextDecoder().decode(bytes.subarray(at, at + size)));
    at += size;
  }
  return found;
}

// The [tag, text] entries of the first directory of whatever holds one.
function entriesOf(bytes) {
  const view = new DataView(bytes.buffer);
  const start = view.getUint16(0);
  if (start === 0xffd8) return ifd(bytes, jpegExif(view));
  if (start === 0x4949 || start === 0x4d4d) return ifd(bytes, 0);
  const still = "avif" === new TextDecoder().decode(bytes.subarray(8, 12));
  if (view.getUint32(4) === 0x66747970 && start === 0) return still ? [] : ifd(bytes, itemExif(bytes));
  return ifd(bytes, boxExif(view));
}

// Offset of the TIFF header in HEIC and moving AVIF, where Exif is an item among others: our blocks begin like this.
function itemExif(bytes) {
  const begin = [0x4d, 0x4d, 0, 0x2a, 0, 0, 0, 8];
  for (let at = bytes.indexOf(0x4d); at >= 0; at = bytes.indexOf(0x4d, at + 1))
    if (begin.every((byte, i) => bytes[at + i] === byte)) return at;
  return -1;
}

// Offset of the TIFF header in a JPEG: in the first APP1 segment that begins with "Exif\0\0". -1 for none.
function jpegExif(view) {
  let at = 2;
  while (at + 10 < view.byteLength && view.getUint8(at) === 0xff) {
    const marker = view.getUint8(at + 1);
    if (marker === 0xda) break; // pixels from here on
    if (marker === 0xe1 && view.getUint32(at + 4) === 0x45786966) return at + 10;
    at += 2 + view.getUint16(at + 2);
  }
  return -1;
}

// The same in JPEG XL: a box "Exif", which begins with the distance of the header from the next byte.
function boxExif(view) {
  let at = 0;
  while (at + 16 < view.byteLength) {
    let size = view.getUint32(at);
    const head = size === 1 ? 16 : 8;
    if (size === 1) size = Number(view.getBigUint64(at + 8));
    if (view.getUint32(at + 4) === 0x45786966) return at + head + 4 + view.getUint32(at + head);
    if (size < head) break; // 0: the last box
    at += size;
  }
  return -1;
}

function ifd(bytes, tiff) {
  if (tiff < 0) return [];
  const view = new DataView(bytes.buffer, tiff);
  const little = view.getUint16(0) === 0x4949;
  const first = view.getUint32(4, little);
  const found = [];
  for (let i = 0; i < view.getUint16(first, little); i++) {
    const entry = first + 2 + i * 12;
    const count = view.getUint32(entry + 4, little);
    if (view.getUint16(entry + 2, little) !== ASCII) continue;
    // Up to four bytes stand in the entry itself.
    const at = count <= 4 ? entry + 8 : view.getUint32(entry + 8, little);
    const raw = bytes.subarray(tiff + at, tiff + at + count - 1);
    found.push([view.getUint16(entry, little), new TextDecoder().decode(raw)]);
  }
  return found;
}
