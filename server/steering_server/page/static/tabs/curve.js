// Strength curve: how probabilities change with the strength of a profile, and a strength picked by looking.

import { element, refill } from "../dom.js";
import { BASELINE, LEAST_STRENGTH, MOST_STRENGTH, choicesOf, labelOf, strengthText } from "../arm.js";
import { PromptEditor, askedToParameters, isEmpty } from "../prompt_editor.js";
import { failureNotice, waitingNotice } from "../notice.js";
import { percent, visible } from "../format.js";
import { escaped, unescaped } from "../escapes.js";
import { EXAMPLES } from "../examples.js";
import { measure } from "../curve/measuring.js";
import { Plot } from "../curve/plot.js";
import { FOLLOWED, STEPS, parametersOf, stateOf, strengthsOf } from "../curve/state.js";

/** Open the tab in `panel`; see tabs.js. */
export function open(panel, app) {
  return new Curve(panel, app);
}

class Curve {
  measured = null;
  abort = null;
  isShown = false;

  constructor(panel, app) {
    this.app = app;
    this.editor = new PromptEditor({ changed: () => this.keep(), run: () => this.measure() });
    this.plot = new Plot((strength) => this.pick(strength));
    this.options = element("div", { class: "fields curve-options" });
    this.notices = element("div", { class: "stack" });
    this.slider = element("input", { type: "range", "aria-label": "Strength", oninput: () => this.pick(Number(this.slider.value)) });
    this.readout = element("div", { class: "scroll" });
    this.useButton = element("button", { type: "button", class: "primary", onclick: () => this.compare() });
    this.numbers = element("details", { ontoggle: () => this.drawNumbers() }, element("summary", {}, "All numbers"), element("div", { class: "scroll" }));
    this.result = element("section", { class: "card stack curve-result", "aria-label": "Curve", hidden: true },
      this.plot.node, element("div", { class: "curve-slider" }, this.slider),
      element("div", { class: "row apart" }, this.says = element("h3", {}), this.useButton), this.readout, this.numbers);
    panel.append(
      element("div", { class: "card stack" },
        element("div", { class: "row apart" }, element("h2", {}, "Probability over the strength of a profile"), this.editor.choice),
        this.editor.node, this.options,
        element("div", { class: "row" }, element("button", { type: "button", class: "primary", onclick: () => this.measure() }, "Draw"),
          element("span", { class: "hint" }, "or Ctrl+Enter"))),
      this.notices, this.result);
  }

  /** Show the state that the address has, and measure at once if it has a prompt. */
  show(parameters) {
    if (this.isShown && parameters.toString() === parametersOf(this.state).toString()) return;
    this.isShown = true;
    const names = this.app.server.usable.map((profile) => profile.name);
    this.state = stateOf(parameters, names.includes("parentheses") ? "parentheses" : names[0] ?? "");
    const given = [...parameters.keys()].length > 0;
    if (!given) this.state.asked.prompt = EXAMPLES.find((example) => example.profile === this.state.profiles)?.prompt ?? "";
    this.choices = choicesOf(names).filter((choice) => choice !== BASELINE);
    if (this.state.profiles && !this.choices.includes(this.state.profiles)) this.choices.push(this.state.profiles);
    this.editor.set(this.state.asked);
    this.drawOptions();
    this.clear();
    this.keep();
    if (!this.choices.length) refill(this.notices, element("p", { class: "notice" }, "This server has no profile for its model, so there is no strength to change."));
    else if (given && !isEmpty(this.state.asked)) this.measure();
  }

  drawOptions() {
    const { state } = this;
    const change = (make) => (event) => {
      make(event.target);
      this.drawOptions();
      this.keep();
    };
    const select = (id, title, options, current, make) => element("div", { class: "field" }, element("label", { for: id }, title),
      element("select", { id, onchange: change(make) }, options.map(([value, text]) => element("option", { value, selected: value === current }, text))));
    refill(this.options,
      select("curve-profile", "Profile", this.choices.map((choice) => [choice, choice.replaceAll("+", " + ")]), state.profiles, ({ value }) => {
        state.profiles = value;
      }),
      select("curve-follow", "Follow", Object.entries(FOLLOWED), state.follow, ({ value }) => {
        state.follow = value;
      }),
      state.follow === "text" && element("div", { class: "field" }, element("label", { for: "curve-text" }, "Text"),
        element("input", { type: "text", id: "curve-text", class: "mono", spellcheck: "false", value: escaped(state.text), placeholder: "such as )))\\n", oninput: (event) => {
          state.text = unescaped(event.target.value);
          this.keep();
        } })),
      state.follow === "answers" && element("div", { class: "field" }, element("label", { for: "curve-tokens" }, "Tokens of an answer"),
        element("input", { type: "number", id: "curve-tokens", min: 1, max: 64, value: state.tokens, onchange: change(({ value }) => {
          state.tokens = Math.min(64, Math.max(1, Math.round(Number(value)) || 1));
        }) })),
      select("curve-step", "Strengths", STEPS.map((step) => [String(step), `${strengthsOf(step).length}, every ${step}`]), String(state.step), ({ value }) => {
        state.step = Number(value);
      }));
  }

  keep() {
    this.state.asked = this.editor.asked;
    this.app.keep(parametersOf(this.state));
  }

  clear() {
    this.abort?.abort();
    this.measured = null;
    this.result.hidden = true;
    refill(this.notices);
  }

  async measure() {
    this.keep();
    this.clear();
    const abort = new AbortController();
    this.abort = abort;
    const state = structuredClone(this.state);
    refill(this.notices, waitingNotice(`Asking the model at ${strengthsOf(state.step).length} strengths, from −2 to 3, in one request.`));
    try {
      const measured = await measure(state, abort.signal);
      if (this.abort !== abort) return;
      refill(this.notices);
      this.measured = measured;
      this.asked = state;
      this.result.hidden = false;
      this.slider.min = LEAST_STRENGTH;
      this.slider.max = MOST_STRENGTH;
      this.slider.step = state.step;
      this.pick(measured.strengths.includes(state.picked) ? state.picked : 1);
      this.drawNumbers();
      this.app.announce("The curve is drawn.");
    } catch (error) {
      if (this.abort === abort && error.name !== "AbortError") refill(this.notices, failureNotice(error, () => this.measure()));
    }
  }

  pick(strength) {
    const { strengths, series } = this.measured;
    this.state.picked = strength;
    this.keep();
    this.slider.value = strength;
    this.plot.show(this.measured, strength);
    const [zero, here, fitted] = [0, strength, 1].map((each) => strengths.indexOf(each));
    const told = (probability) => (probability === null ? "not among 20" : percent(probability));
    this.slider.setAttribute("aria-valuetext", `${strengthText(strength)}: ${series.map(({ name, probabilities }) => `${visible(name)} ${told(probabilities[here])}`).join(", ")}`);
    this.says.textContent = `At strength ${strengthText(strength)}`;
    this.useButton.textContent = `Compare at ${strengthText(strength)}`;
    refill(this.readout, element("table", {},
      element("thead", {}, element("tr", {}, ["Continuation", "Baseline", `At ${strengthText(strength)}`, "As fitted"].map((title, at) =>
        element("th", { scope: "col", class: at ? "number" : "" }, title)))),
      element("tbody", {}, series.map(({ name, probabilities }, at) => element("tr", {},
        element("th", { scope: "row", class: `series-${at}` },
          element("span", { class: "series-name" }, element("span", { class: "dot", "aria-hidden": "true" }), element("code", {}, visible(name)))),
        [zero, here, fitted].map((index) => element("td", { class: index === here ? "number picked" : "number" }, told(probabilities[index]))))))));
  }

  drawNumbers() {
    if (!this.measured || !this.numbers.open) return;
    const { strengths, series } = this.measured;
    refill(this.numbers.lastChild, element("table", {},
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Strength"), series.map(({ name }) => element("th", { scope: "col", class: "number" }, element("code", {}, visible(name)))))),
      element("tbody", {}, strengths.map((strength, at) => element("tr", {}, element("th", { scope: "row" }, strengthText(strength)),
        series.map(({ probabilities }) => element("td", { class: "number" }, probabilities[at] === null ? "–" : percent(probabilities[at]))))))));
  }

  compare() {
    const parameters = new URLSearchParams();
    askedToParameters(this.asked.asked, parameters);
    parameters.append("arm", BASELINE);
    parameters.append("arm", labelOf({ profiles: this.asked.profiles, strength: this.state.picked }));
    this.app.go("compare", parameters);
  }
}
