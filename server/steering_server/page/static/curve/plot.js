// Curves of probability over strength, as SVG.

import { svg, refill } from "../dom.js";
import { strengthText } from "../arm.js";
import { visible } from "../format.js";

const HEIGHT = 340;
const MARGIN = { top: 14, right: 120, bottom: 38, left: 46 };
const LABEL_GAP = 15; // pixels between the names at the lines' ends

/** A plot. `picked(strength)` is called when one is pointed at with the button down, or clicked. */
export class Plot {
  constructor(picked) {
    this.picked = picked;
    this.node = svg("svg", { class: "plot", role: "img" });
    const pick = (event) => this.measured && this.picked(this.nearest(event.clientX - this.node.getBoundingClientRect().left));
    this.node.addEventListener("pointerdown", (event) => {
      this.node.setPointerCapture(event.pointerId);
      pick(event);
    });
    this.node.addEventListener("pointermove", (event) => event.buttons && pick(event));
    new ResizeObserver(() => this.draw()).observe(this.node);
  }

  /** Show other curves, and a strength that is picked. */
  show(measured, strength) {
    this.measured = measured;
    this.strength = strength;
    this.draw();
  }

  nearest(left) {
    const { strengths } = this.measured;
    const far = (strength) => Math.abs(this.x(strength) - left);
    return strengths.reduce((best, strength) => (far(strength) < far(best) ? strength : best));
  }

  x(strength) {
    const { strengths } = this.measured;
    const [least, most] = [strengths[0], strengths.at(-1)];
    return MARGIN.left + ((strength - least) / (most - least)) * (this.width - MARGIN.left - this.right);
  }

  y(probability) {
    return MARGIN.top + (1 - probability) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  }

  draw() {
    this.width = this.node.clientWidth;
    if (!this.measured || !this.width) return;
    this.right = this.width < 520 ? 16 : MARGIN.right; // on a narrow screen the list below names the lines
    this.node.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.node.setAttribute("aria-label", `Probabilities of ${this.measured.series.map((each) => visible(each.name)).join(", ")} over the strength`);
    refill(this.node, this.grid(), this.marker(), this.measured.series.map((each, at) => this.line(each, at)), this.right > 16 && this.names());
  }

  grid() {
    const { strengths } = this.measured;
    const [left, right, bottom] = [this.x(strengths[0]), this.x(strengths.at(-1)), this.y(0)];
    return [
      [0, 0.25, 0.5, 0.75, 1].map((probability) => [
        svg("line", { class: "grid", x1: left, x2: right, y1: this.y(probability), y2: this.y(probability) }),
        svg("text", { class: "tick end", x: left - 8, y: this.y(probability) + 4 }, `${100 * probability}%`),
      ]),
      strengths.filter(Number.isInteger).map((strength) => [
        svg("line", { class: strength === 0 || strength === 1 ? "grid named" : "grid", x1: this.x(strength), x2: this.x(strength), y1: MARGIN.top, y2: bottom }),
        svg("text", { class: "tick middle", x: this.x(strength), y: bottom + 17 }, strengthText(strength)),
      ]),
      svg("text", { class: "tick middle", x: this.x(0), y: bottom + 32 }, "baseline"),
      svg("text", { class: "tick middle", x: this.x(1), y: bottom + 32 }, "as fitted"),
    ];
  }

  marker() {
    return svg("line", { class: "picked", x1: this.x(this.strength), x2: this.x(this.strength), y1: MARGIN.top - 6, y2: this.y(0) });
  }

  line({ probabilities }, at) {
    const { strengths } = this.measured;
    const places = strengths.map((strength, index) => [this.x(strength), probabilities[index]]);
    let pen = "M";
    const path = places.map(([x, probability]) => {
      if (probability === null) {
        pen = "M";
        return "";
      }
      const step = `${pen}${x.toFixed(1)} ${this.y(probability).toFixed(1)}`;
      pen = "L";
      return step;
    }).join("");
    const here = strengths.indexOf(this.strength);
    return svg("g", { class: `series series-${at}` }, svg("path", { d: path }),
      places.map(([x, probability], index) => probability !== null &&
        svg("circle", { cx: x, cy: this.y(probability), r: index === here ? 5.5 : 2.6 })));
  }

  // The names at the right ends of the lines, moved apart where they would overlap.
  names() {
    const ends = this.measured.series.map(({ name, probabilities }, at) => ({ name, at, y: this.y(probabilities.at(-1) ?? 0) })).sort((one, other) => one.y - other.y);
    for (let index = 1; index < ends.length; index += 1) ends[index].y = Math.max(ends[index].y, ends[index - 1].y + LABEL_GAP);
    for (let index = ends.length - 1, most = this.y(0); index >= 0; index -= 1, most -= LABEL_GAP) ends[index].y = Math.min(ends[index].y, most);
    const left = this.x(this.measured.strengths.at(-1)) + 10;
    return ends.map(({ name, at, y }) => svg("text", { class: `name series-${at}`, x: left, y: y + 4 }, shortened(name)));
  }
}

function shortened(name) {
  const text = visible(name);
  return text.length > 13 ? `${text.slice(0, 12)}…` : text;
}
