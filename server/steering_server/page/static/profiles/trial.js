// Try a profile on a prompt: its answer with and without components, how likely each arm finds it, and what each component does.

import { element, refill } from "../dom.js";
import { failureNotice } from "../notice.js";
import { percent, visible } from "../format.js";
import { PromptEditor, askedOf, isEmpty } from "../prompt_editor.js";
import { AnswerView } from "../compare/answer_view.js";
import { Comparison } from "../compare/comparison.js";
import { UNSTEERED, armWithout, askArms, scoresOf, scoresWithoutEach } from "./asking.js";

const SOON = 250; // milliseconds; several components are switched in a row
const MOST_MEASURED = 64;
const STANDARD_TOKENS = 1;

/** The trial of one profile. `changed()` is called when what is asked changes; `off` returns the names that are left out. */
export class Trial {
  detail = null;
  asked = null;
  abort = new AbortController();
  timer = null;

  constructor({ changed, off, announce }) {
    Object.assign(this, { changed, off, announce });
    this.editor = new PromptEditor({ changed: () => this.edited(), run: () => this.ask() });
    this.tokens = element("input", { type: "number", id: "trial-tokens", min: 1, max: 64, step: 1, value: STANDARD_TOKENS, onchange: () => this.edited() });
    this.askButton = element("button", { type: "button", class: "primary", onclick: () => this.ask() }, "Ask");
    this.measureButton = element("button", { type: "button", onclick: () => this.measure(), disabled: true }, "Measure each component");
    this.answers = element("div", { class: "arms" });
    this.meters = element("div", { class: "stack" });
    this.effects = element("div", { class: "stack" });
    this.notices = element("div", {});
    this.node = element("section", { class: "card stack", "aria-labelledby": "trial-title" },
      element("div", { class: "row apart" }, element("h2", { id: "trial-title" }, "Try it on a prompt"), this.editor.choice),
      this.editor.node,
      element("div", { class: "row" }, this.askButton, element("span", { class: "hint" }, "or Ctrl+Enter"),
        element("span", { class: "row tight" }, element("label", { for: "trial-tokens" }, "max tokens"), this.tokens),
        element("span", { class: "spread" }), this.measureButton),
      this.notices, this.answers, this.meters, this.effects);
  }

  get maxTokens() {
    return Math.min(64, Math.max(1, Math.round(Number(this.tokens.value)) || STANDARD_TOKENS));
  }

  /** Show the trial of another profile, with what is asked of it. */
  open(detail, components, asked, maxTokens) {
    this.stop();
    this.detail = detail;
    this.components = components;
    this.editor.set(asked);
    this.tokens.value = maxTokens;
    this.clear();
    const usable = detail.model_name !== null;
    this.askButton.disabled = !usable;
    if (!usable) refill(this.notices, element("p", { class: "muted" }, "Requests cannot use this profile, so it cannot be tried here."));
  }

  clear() {
    this.result = null;
    this.measureButton.disabled = true;
    for (const part of [this.answers, this.meters, this.effects, this.notices]) refill(part);
  }

  edited() {
    this.changed();
  }

  /** Other components are left out now: ask again, if there is an answer. */
  switched() {
    clearTimeout(this.timer);
    if (this.result) this.timer = setTimeout(() => this.ask(), SOON);
  }

  stop() {
    clearTimeout(this.timer);
    this.abort.abort();
    this.abort = new AbortController();
  }

  arms() {
    const { name } = this.detail;
    const off = this.off();
    const arms = [UNSTEERED, armWithout(name, [], "whole")];
    if (off.length) arms.push(armWithout(name, off, "without"));
    return arms;
  }

  async ask() {
    if (!this.detail || isEmpty(this.editor.asked)) return;
    this.stop();
    this.changed();
    await this.attempt(async (signal) => {
      const arms = this.arms();
      const { prompt, answers } = await askArms(this.editor.asked, arms, this.maxTokens, signal);
      const target = answers[1].tokens.map((token) => token.id);
      const scores = await scoresOf(prompt, target, arms, signal);
      this.result = { prompt, target, arms, answers, scores, off: this.off() };
      this.show();
    });
  }

  show() {
    const { answers, scores, off } = this.result;
    const { marks } = new Comparison(answers, true);
    const titles = ["baseline", this.detail.name, `${this.detail.name} without ${countText(off, this.components)}`].slice(0, answers.length);
    const views = answers.map((answer, k) => {
      const view = new AnswerView(titles[k], () => {});
      view.extend(answer);
      view.mark(marks[k]);
      return element("article", { class: `arm arm-${k}`, "aria-label": titles[k] },
        element("header", {}, element("span", { class: "dot", "aria-hidden": "true" }), element("span", { class: "arm-name" }, titles[k])),
        element("div", { class: "arm-body" }, view.node));
    });
    refill(this.answers, views);
    const whole = visible(answers[1].tokens.map((token) => token.text).join(""));
    refill(this.meters,
      element("h3", {}, "How likely each finds the answer of the whole profile, ", element("code", {}, short(whole))),
      element("div", { class: "likelihoods" }, scores.map((score, k) => [
        element("span", { class: `arm-name arm-${k}` }, titles[k]), meter(Math.exp(score), k), element("span", { class: "number" }, percent(Math.exp(score))),
      ])));
    this.measureButton.disabled = false;
    refill(this.effects);
    this.announce(titles.map((title, k) => `${title}: ${answers[k].tokens.map((token) => token.text).join("")}, ${percent(Math.exp(scores[k]))}`).join(". "));
  }

  /** Leave out each component alone, and show by how much the answer becomes less likely. */
  async measure() {
    const { prompt, target, scores, off } = this.result;
    const reference = off.length ? scores[2] : scores[1];
    const all = this.components.filter((one) => !off.includes(one.name));
    const some = [...all].sort((one, other) => Math.abs(other.scale - 1) - Math.abs(one.scale - 1)).slice(0, MOST_MEASURED).map((one) => one.name);
    const left = all.length > some.length ? `the ${some.length} of ${all.length} that are scaled most` : "each component";
    const found = [];
    this.measureButton.disabled = true;
    await this.attempt(async (signal) => {
      for await (const each of scoresWithoutEach(this.detail.name, some, off, prompt, target, signal)) {
        found.push({ ...each, change: Math.exp(each.score) - Math.exp(reference) });
        this.showEffects(found, left, some.length);
      }
    });
    this.measureButton.disabled = false;
  }

  showEffects(found, left, total) {
    const sorted = [...found].sort((one, other) => Math.abs(other.change) - Math.abs(one.change));
    const most = Math.max(0.01, ...sorted.map((one) => Math.abs(one.change)));
    refill(this.effects,
      element("h3", {}, `What ${left} does: the answer's probability changes so much without it`, found.length < total ? ` (${found.length} of ${total})` : ""),
      element("div", { class: "effects", role: "list" }, sorted.map(({ name, change }) => element("div", { class: "effect", role: "listitem" },
        element("code", {}, name), effectBar(change / most), element("span", { class: "number" }, points(change))))));
  }

  async attempt(work) {
    const { signal } = this.abort;
    this.node.setAttribute("aria-busy", "true");
    refill(this.notices);
    try {
      await work(signal);
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) refill(this.notices, failureNotice(error, () => this.ask()));
    }
    if (!signal.aborted) this.node.removeAttribute("aria-busy");
  }
}

/** Return what a trial begins with: the parameters of the address, or a prompt on which the profile makes a difference. */
export function askedAtFirst(parameters, name, examples) {
  if (parameters.has("prompt") || parameters.has("m")) return askedOf(parameters);
  const example = examples.find((one) => one.profile === name && one.kind === "best");
  return askedOf(example ? new URLSearchParams({ prompt: example.prompt }) : new URLSearchParams());
}

function countText(off, components) {
  if (off.length === 1) return off[0];
  return off.length === components.length ? "all of its components" : `${off.length} components`;
}

function short(text) {
  return text.length <= 40 ? text : `${text.slice(0, 39)}…`;
}

function meter(share, k) {
  const fill = element("span", { class: "meter-fill" });
  fill.style.width = `${100 * share}%`;
  return element("span", { class: `meter arm-${k}`, "aria-hidden": "true" }, fill);
}

// To the left where the answer becomes less likely without the component, to the right where it becomes likelier.
function effectBar(share) {
  const fill = element("span", { class: share < 0 ? "effect-fill needed" : "effect-fill" });
  fill.style.width = `${50 * Math.abs(share)}%`;
  return element("span", { class: "effect-bar", "aria-hidden": "true" }, fill);
}

function points(change) {
  const value = Math.abs(100 * change);
  return `${change < 0 ? "−" : "+"}${value < 0.1 ? value.toFixed(2) : value.toFixed(1)} points`;
}
