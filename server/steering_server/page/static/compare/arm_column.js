// One arm: what it applies, its strength, its answer and how fast it came.

import { element, refill } from "../dom.js";
import { BASELINE, LEAST_STRENGTH, MOST_STRENGTH, choicesOf, labelOf, strengthText } from "../arm.js";
import { duration } from "../format.js";
import { AnswerView } from "./answer_view.js";

const STEP = 0.05;
const FINISHES = { stop: "ended by itself", length: "reached max tokens", tool_calls: "called a tool" };

/**
 * A column of the comparison. `arm` is changed in place; `changed()` is called after that, `remove()` when the arm is to go, and
 * `noticed(at, target)` when a token of the answer is pointed at.
 */
export class ArmColumn {
  view = null;

  constructor(arm, index, names, { changed, remove, noticed }) {
    Object.assign(this, { arm, index, names, changed, remove, noticed });
    this.select = element("select", { class: "arm-profile", onchange: () => this.choose(this.select.value) });
    this.slider = element("input", {
      type: "range", min: LEAST_STRENGTH, max: MOST_STRENGTH, step: STEP,
      oninput: () => this.showStrength(Number(this.slider.value)),
      onchange: () => {
        this.arm.strength = Number(this.slider.value);
        this.changed();
      },
    });
    this.strength = element("output", { class: "number strength" });
    this.strengthRow = element("div", { class: "arm-strength" }, element("span", { class: "hint" }, "strength"), this.slider, this.strength);
    this.removeButton = element("button", { type: "button", class: "quiet icon", onclick: () => this.remove(this) }, "×");
    this.body = element("div", { class: "arm-body" });
    this.facts = element("p", { class: "arm-facts hint number" });
    this.node = element("article", {},
      element("header", {}, element("span", { class: "dot", "aria-hidden": "true" }), this.select, this.removeButton),
      this.strengthRow, this.body, this.facts);
    this.draw();
  }

  /** Show the arm as it is now, at its place and with or without a button that removes it. */
  draw(index = this.index, removable = true) {
    this.index = index;
    const { profiles, strength } = this.arm;
    const title = `Arm ${index + 1}`;
    this.node.className = `arm arm-${index}`;
    this.node.setAttribute("aria-label", `${title}: ${labelOf(this.arm)}`);
    const choices = choicesOf(this.names);
    if (!choices.includes(profiles)) choices.push(profiles); // of a link; the server says what is wrong with it
    refill(this.select, choices.map((choice) => element("option", { value: choice, selected: choice === profiles }, choice.replaceAll("+", " + "))));
    this.select.setAttribute("aria-label", `Profile of arm ${index + 1}`);
    this.slider.setAttribute("aria-label", `Strength of arm ${index + 1}`);
    this.slider.min = Math.min(LEAST_STRENGTH, strength);
    this.slider.max = Math.max(MOST_STRENGTH, strength);
    this.slider.value = strength;
    this.strengthRow.classList.toggle("unused", profiles === BASELINE);
    this.slider.disabled = profiles === BASELINE;
    this.showStrength(strength);
    this.removeButton.hidden = !removable;
    this.removeButton.setAttribute("aria-label", `Remove arm ${index + 1}`);
  }

  showStrength(strength) {
    this.strength.textContent = strengthText(strength);
    this.slider.setAttribute("aria-valuetext", strengthText(strength));
  }

  choose(profiles) {
    if (profiles !== BASELINE && this.arm.profiles === BASELINE) this.arm.strength = 1;
    this.arm.profiles = profiles;
    this.draw();
    this.changed();
  }

  /** Begin to show a new answer. */
  begin() {
    this.view = new AnswerView(labelOf(this.arm), (at, target) => this.noticed(this, at, target));
    refill(this.body, this.view.node);
    this.facts.textContent = "";
    this.node.classList.add("running");
  }

  /** Show what has come of `answer`. */
  extend(answer) {
    this.view.extend(answer);
    const { latency, speed, tokens, finish } = answer;
    if (latency === null) return;
    this.facts.textContent = [
      `first token ${duration(latency)}`,
      speed === null ? null : `${speed < 100 ? speed.toFixed(1) : Math.round(speed)} tokens/s`,
      `${tokens.length} ${tokens.length === 1 ? "token" : "tokens"}`,
      FINISHES[finish] ?? null,
    ].filter(Boolean).join(" · ");
  }

  /** The answer is complete, or given up. */
  end() {
    this.node.classList.remove("running");
  }

  /** Say that there is no answer for the arm as it is. */
  clear(text) {
    this.view = null;
    this.end();
    refill(this.body, element("p", { class: "muted" }, text));
    this.facts.textContent = "";
  }
}
