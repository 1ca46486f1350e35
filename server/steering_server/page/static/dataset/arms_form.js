// The arms of a run: profiles and their strengths.

import { element, refill } from "../dom.js";
import { BASELINE, choicesOf, labelOf } from "../arm.js";

const MOST_ARMS = 4;
const MOST_STRENGTH = 10; // of the API

/** Rows of arms, of which the first is the one that the others are compared with. `changed()` is called after each change. */
export class ArmsForm {
  arms = [];

  constructor(changed) {
    this.changed = changed;
    this.rows = element("div", { class: "stack run-arms" });
    this.add = element("button", { type: "button", class: "quiet", onclick: () => this.extend() }, "Add an arm");
    this.node = element("div", { class: "stack" }, this.rows, element("div", {}, this.add));
  }

  /** Show `arms`, of the profiles `names`. */
  set(arms, names) {
    this.arms = arms;
    this.names = names;
    this.draw();
  }

  /** The labels, each once. */
  get labels() {
    return [...new Set(this.arms.map(labelOf))];
  }

  draw() {
    refill(this.rows, this.arms.map((arm, k) => this.row(arm, k)));
    this.add.disabled = this.arms.length >= MOST_ARMS;
  }

  row(arm, k) {
    const choices = choicesOf(this.names);
    if (!choices.includes(arm.profiles)) choices.push(arm.profiles);
    const strength = element("input", {
      type: "number", step: 0.1, min: -MOST_STRENGTH, max: MOST_STRENGTH, value: arm.strength, "aria-label": `Strength of arm ${k + 1}`, hidden: arm.profiles === BASELINE,
      onchange: () => this.change(() => {
        const given = strength.value === "" ? 1 : Number(strength.value);
        arm.strength = Math.min(MOST_STRENGTH, Math.max(-MOST_STRENGTH, Number.isFinite(given) ? given : 1));
      }),
    });
    const select = element("select", {
      "aria-label": `Profile of arm ${k + 1}`,
      onchange: () => this.change(() => {
        arm.profiles = select.value;
        arm.strength = 1;
      }),
    }, choices.map((choice) => element("option", { value: choice, selected: choice === arm.profiles }, choice.replaceAll("+", " + "))));
    return element("div", { class: `run-arm arm-${k}` },
      element("span", { class: "dot", "aria-hidden": "true" }), select, strength,
      this.arms.length > 2 ? element("button", { type: "button", class: "quiet icon", "aria-label": `Remove arm ${k + 1}`, onclick: () => this.change(() => this.arms.splice(k, 1)) }, "×") : null);
  }

  extend() {
    const profiles = this.arms.at(-1).profiles === BASELINE ? this.names[0] ?? BASELINE : this.arms.at(-1).profiles;
    const used = new Set(this.labels);
    const strength = [1, 0.5, 1.5, 2].find((one) => !used.has(labelOf({ profiles, strength: one }))) ?? 3;
    this.change(() => this.arms.push({ profiles, strength }));
  }

  change(make) {
    make();
    this.draw();
    this.changed();
  }
}
