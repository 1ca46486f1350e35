// What a profile scales, as a map: layers from left to right, heads from top to bottom, then neurons and the final layer.

import { element, refill } from "../dom.js";
import { numberText, shareOf } from "./components.js";

const MOST_NEURONS = 300; // buttons of single neurons
const WIDE = 40; // layers; with more of them the cells are too narrow for numbers

/** A map of components. `toggled(names, on)` is called when some are switched on or off. */
export class ComponentMap {
  constructor(toggled) {
    this.toggled = toggled;
    this.node = element("div", { class: "stack map" });
    this.switches = [];
  }

  /** Show the components of `profile`, which has the content of a profile's file. */
  draw(profile, components) {
    this.switches = [];
    const heads = components.filter((one) => one.kind === "head");
    const neurons = components.filter((one) => one.kind === "neuron");
    const final = components.filter((one) => one.kind === "final");
    refill(this.node,
      heads.length || neurons.length ? [legend(), this.grid(profile.model, heads, neurons)] : null,
      neurons.length ? this.neuronList(neurons) : null,
      final.length ? this.finalLayer(profile, final) : null);
  }

  /** Show which components are left out. */
  mark(off) {
    for (const { button, names } of this.switches) {
      const left = names.filter((name) => off.has(name)).length;
      button.setAttribute("aria-pressed", left === 0 ? "true" : left === names.length ? "false" : "mixed");
    }
  }

  grid({ layers, heads: count }, heads, neurons) {
    const scales = [...heads, ...neurons].map((one) => one.scale);
    const rows = heads.length ? count : 0;
    const cells = heads.map((head) => placed(this.cell(head, scales), head.layer, head.index));
    const byLayer = Map.groupBy(neurons, (neuron) => neuron.layer);
    const counts = [...byLayer].map(([layer, some]) => placed(this.switch(some.map((one) => one.name), {
      class: "cell count", "aria-label": `${neuronsText(some.length)} of layer ${layer}`, title: `${neuronsText(some.length)} of layer ${layer}`,
    }, some.length), layer, rows));
    const every = Math.ceil(layers / 30) * (layers > 30 ? 2 : 1);
    const grid = element("div", { class: layers > WIDE ? "map-grid narrow" : "map-grid", role: "group", "aria-label": "Scaled components, by layer" },
      rows ? placed(element("div", { class: "map-field", "aria-hidden": "true" }), 0, 0, layers, rows) : null,
      neurons.length ? placed(element("div", { class: "map-field neurons", "aria-hidden": "true" }), 0, rows, layers, 1) : null,
      Array.from({ length: rows }, (_, head) => placed(element("span", { class: "map-label" }, head), -1, head)),
      neurons.length ? placed(element("span", { class: "map-label" }, "neurons"), -1, rows) : null,
      cells, counts,
      Array.from({ length: layers }, (_, layer) => layer % every ? null : placed(element("span", { class: "map-label layer" }, layer), layer, rows + 1)));
    grid.style.setProperty("--layers", layers);
    grid.style.setProperty("--heads", rows + (neurons.length ? 1 : 0));
    for (const field of grid.querySelectorAll(".map-field")) field.style.setProperty("--rows", field.matches(".neurons") ? 1 : rows);
    return element("div", {},
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Map of layers and heads" }, grid),
      element("p", { class: "hint map-axis" }, rows ? `layers 0 to ${layers - 1} from left to right, heads 0 to ${rows - 1} from top to bottom` : `layers 0 to ${layers - 1}`));
  }

  cell(component, scales) {
    const button = this.switch([component.name], {
      class: component.scale < 1 ? "cell less" : "cell more", "aria-label": `${component.name}: ${component.title}`, title: `${component.name}: ${component.title}`,
      "data-name": component.name,
    }, element("span", { class: "cell-scale" }, short(component.scale)));
    button.style.setProperty("--share", `${Math.round(25 + 75 * shareOf(component.scale, scales))}%`);
    return button;
  }

  neuronList(neurons) {
    const scales = neurons.map((one) => one.scale);
    const far = [...neurons].sort((one, other) => shareOf(other.scale, scales) - shareOf(one.scale, scales)).slice(0, MOST_NEURONS);
    const summary = far.length < neurons.length ? `The ${far.length} neurons that are scaled most, of ${neurons.length}` : neuronsText(neurons.length);
    return element("details", {}, element("summary", {}, summary),
      element("div", { class: "row" }, far.map((one) => this.switch([one.name], { class: "chip part", title: one.title, "data-name": one.name }, `${one.name} ×${numberText(one.scale)}`))));
  }

  finalLayer(profile, parts) {
    const { gate } = profile.final_layer;
    const titles = { "final_layer.own_attention": "self-only attention", "final_layer.intercept": "intercept" };
    return element("div", { class: "row" },
      element("span", { class: "hint" }, `Final layer (${profile.model.layers - 1})`),
      parts.map((part) => this.switch([part.name], { class: "chip part", title: part.title, "data-name": part.name },
        `${titles[part.name]} ${part.name.endsWith("intercept") ? "×" : ""}${numberText(part.scale)}`)),
      gate ? element("span", { class: "hint" }, `where the top probability is ${gate.low} to ${gate.high}`) : null);
  }

  switch(names, attributes, ...content) {
    const button = element("button", {
      type: "button", "aria-pressed": "true", ...attributes,
      onclick: () => this.toggled(names, button.getAttribute("aria-pressed") !== "true"),
    }, content);
    this.switches.push({ button, names });
    return button;
  }
}

function legend() {
  return element("p", { class: "row hint map-legend" },
    element("span", {}, element("span", { class: "swatch more", "aria-hidden": "true" }), "scaled up"),
    element("span", {}, element("span", { class: "swatch less", "aria-hidden": "true" }), "scaled down"),
    element("span", {}, element("span", { class: "swatch off", "aria-hidden": "true" }), "left out: click a component to switch it"));
}

function neuronsText(count) {
  return count === 1 ? "1 neuron" : `${count} neurons`;
}

function short(scale) {
  return String(Math.round(scale * 100) / 100).replace("-", "−");
}

function placed(node, column, row, columns = 1, rows = 1) {
  node.style.gridColumn = `${column + 2} / span ${columns}`; // the first column has the labels
  node.style.gridRow = `${row + 1} / span ${rows}`;
  return node;
}
