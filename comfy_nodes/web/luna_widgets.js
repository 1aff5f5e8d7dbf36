// Which widgets of a saver show: those of images that are connected, and on the canvas the advanced ones only when they
// are wanted ("Show Advanced" in the node's menu). Vue nodes have a button for that.
import { app } from "../../scripts/app.js";

const SLOTS = [2, 3, 4, 5];

export function arrange(node) {
  for (const slot of SLOTS) {
    const hidden = !isConnected(node, `image_${slot}`);
    for (const name of ["affix", "format", "subdir"]) {
      const widget = node.widgets?.find((one) => one.name === `${name}_${slot}`);
      if (!widget) continue;
      widget.hidden = hidden;
      if (widget.options) widget.options.hidden = hidden; // for Vue nodes
      reserve(widget, !hidden);
    }
  }
  // The frontend passes what the node declares as advanced to Vue nodes only; the canvas reads it from the widget.
  node.lunaAdvanced ??= node.widgets?.filter(({ options }) => options?.advanced) ?? [];
  for (const widget of node.lunaAdvanced) {
    const rare = !isConnected(node, widget.name);
    widget.advanced = rare && !window.LiteGraph.vueNodesMode;
    reserve(widget, !rare || node.showAdvanced);
  }
  node.lunaArranged = arrangement(node);
  resize(node);
}

// Menu, button and the switch to Vue nodes change this without a hook: look while drawing.
export function isArranged(node) {
  return node.lunaArranged === arrangement(node);
}

// A node with images keeps the room that they have.
export function resize(node) {
  const [, least] = node.computeSize();
  const height = node.size[1] - Math.max(0, (node.lunaLeast ?? least) - least);
  node.setSize([node.size[0], node.imgs?.length ? Math.max(height, least) : least]);
  node.lunaLeast = least;
  app.graph?.setDirtyCanvas(true, true);
}

function arrangement(node) {
  return `${Boolean(node.showAdvanced)} ${Boolean(window.LiteGraph.vueNodesMode)}`;
}

function isConnected(node, name) {
  const at = node.inputs?.findIndex((one) => one.name === name) ?? -1;
  return at >= 0 && node.isInputConnected(at);
}

// The canvas reserves room for a hidden widget too, unless it says that it needs none (-4 is the gap between widgets).
function reserve(widget, room) {
  if (room) delete widget.computeSize;
  else widget.computeSize = () => [0, -4];
}
