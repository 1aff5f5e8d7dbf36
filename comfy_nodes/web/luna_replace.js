// "Replace by Luna saver" in the menu of a Save Image node: the same names, the same image, in the background.
import { app } from "../../scripts/app.js";
import { text } from "./luna_text.js";

const REPLACED = "SaveImage";
const SAVER = "LunaDaemonImageSaver";
const SUBGRAPH_INPUT = -10; // the id that a link from the outside of a subgraph begins at
const hasMenuHook = () => typeof app.collectNodeMenuItems === "function"; // since frontend 1.29

app.registerExtension({
  name: "LunaFarm.Replace",
  getNodeMenuItems: (node) => (node.comfyClass === REPLACED ? [item(node)] : []),
  beforeRegisterNodeDef(type, definition) {
    if (definition.name !== REPLACED || hasMenuHook()) return;
    const before = type.prototype.getExtraMenuOptions;
    type.prototype.getExtraMenuOptions = function (canvas, options) {
      before?.call(this, canvas, options);
      options.unshift(item(this));
    };
  },
});

function item(node) {
  return { content: text("replace"), callback: () => replace(node) };
}

export function replace(node) {
  const { graph } = node;
  const saver = window.LiteGraph.createNode(SAVER);
  if (!saver) return null;
  app.canvas.emitBeforeChange?.();
  graph.beforeChange?.();
  saver.pos = [...node.pos];
  graph.add(saver);
  if (node.title !== node.constructor.title) saver.title = node.title;
  Object.assign(saver, { mode: node.mode, color: node.color, bgcolor: node.bgcolor });
  const prefix = node.widgets?.find(({ name }) => name === "filename_prefix");
  const ours = saver.widgets.find(({ name }) => name === "filename_prefix");
  ours.value = prefix?.value || "ComfyUI";
  connect(node, "images", saver, "image_1");
  connect(node, "filename_prefix", saver, "filename_prefix");
  graph.remove(node);
  graph.afterChange?.();
  app.canvas.emitAfterChange?.();
  graph.setDirtyCanvas(true, true);
  return saver;
}

// Give the link of one input to another.
function connect(from, name, to, target) {
  const slot = (node, input) => node.inputs?.findIndex((one) => one.name === input) ?? -1;
  const [old, at] = [slot(from, name), slot(to, target)];
  const link = old < 0 ? null : from.getInputLink(old);
  if (!link || at < 0) return;
  if (link.origin_id === SUBGRAPH_INPUT) from.graph.inputNode.slots[link.origin_slot].connect(to.inputs[at], to);
  else from.graph.getNodeById(link.origin_id)?.connect(link.origin_slot, to, at);
}
