// Compare: two to four arms of one request, side by side, as they are generated.

import { element, refill } from "../dom.js";
import { BASELINE, labelOf } from "../arm.js";
import { PromptEditor, askedOf, askedToParameters, isEmpty } from "../prompt_editor.js";
import { failureNotice } from "../notice.js";
import { Run } from "../compare/run.js";
import { ArmColumn } from "../compare/arm_column.js";
import { AlignedTokens } from "../compare/aligned_tokens.js";
import { EXAMPLES } from "../examples.js";
import { MOST_ARMS, parametersOf, stateOf } from "../compare/state.js";
import { SettingsForm } from "../compare/settings_form.js";
import { TokenCard } from "../compare/token_card.js";
import { copied, showCode } from "../compare/code_dialog.js";

const SOON = 150; // milliseconds; a key held down on a slider asks once

/** Open the tab in `panel`; see tabs.js. */
export function open(panel, app) {
  return new Compare(panel, app);
}

class Compare {
  columns = [];
  run = null;
  timer = null;

  constructor(panel, app) {
    this.app = app;
    this.state = stateOf(new URLSearchParams());
    this.editor = new PromptEditor({ changed: () => this.edited(), run: () => this.ask() });
    this.settings = new SettingsForm(this.state, () => this.edited());
    this.card = new TokenCard();
    this.aligned = new AlignedTokens((k, at, target) => this.noticed(this.run?.columns[k], at, target));
    this.notices = element("div", { class: "stack" });
    this.arms = element("div", { class: "arms" });
    this.says = element("p", { class: "example-says" });
    this.verdict = element("p", { class: "verdict", role: "status" });
    this.runButton = element("button", { type: "button", class: "primary", onclick: () => (this.run?.isRunning ? this.stop() : this.ask()) }, "Run");
    this.addButton = element("button", { type: "button", onclick: () => this.addArm() }, "Add an arm");
    this.linkButton = element("button", { type: "button", onclick: () => this.copyLink() }, "Copy link");
    panel.append(
      element("div", { class: "card stack" },
        element("div", { class: "row apart" }, element("h2", {}, "Compare arms on one prompt"), this.editor.choice),
        this.editor.node,
        this.examples(),
        this.says,
        this.settings.node,
        element("div", { class: "row" }, this.runButton, element("span", { class: "hint" }, "or Ctrl+Enter"),
          element("span", { class: "spread" }), this.addButton, element("button", { type: "button", onclick: () => this.curve() }, "Strength curve"), this.linkButton,
          element("button", { type: "button", onclick: () => showCode(this.read(), app.server.model) }, "Code"))),
      this.notices, this.verdict, this.arms, this.aligned.node, this.card.node);
    app.server.addEventListener("change", () => this.drawArms());
  }

  /** Show the state that the address has, and ask at once if it has one. */
  show(parameters) {
    if (parameters.toString() === parametersOf(this.state).toString() && this.columns.length) return;
    const given = [...parameters.keys()].length > 0;
    this.state = stateOf(parameters);
    if (this.state.arms.length < 2) this.state.arms = this.usualArms();
    if (!given) this.state = this.withExample(EXAMPLES.find((example) => this.app.server.has(example.profile)));
    this.stop();
    this.columns = [];
    this.says.textContent = "";
    this.editor.set(this.state.asked);
    this.settings.set(this.state);
    this.clear();
    this.drawArms();
    this.keep();
    if (given && !isEmpty(this.state.asked)) this.ask();
  }

  usualArms() {
    const [first] = this.app.server.usable;
    const preferred = this.app.server.has("parentheses") ? "parentheses" : first?.name;
    return [{ profiles: BASELINE, strength: 1 }, { profiles: preferred ?? BASELINE, strength: 1 }];
  }

  withExample(example) {
    if (!example) return this.state;
    const asked = askedOf(new URLSearchParams({ prompt: example.prompt }));
    return {
      ...this.state, asked, settings: { ...this.state.settings, max_tokens: example.max_tokens, temperature: 0 },
      arms: [{ profiles: BASELINE, strength: 1 }, { profiles: example.profile, strength: 1 }],
    };
  }

  examples() {
    const chips = EXAMPLES.map((example) => element("button", {
      type: "button", class: "chip", "data-profile": example.profile, title: example.says,
      onclick: () => {
        this.state = this.withExample(example);
        this.columns = [];
        this.editor.set(this.state.asked);
        this.settings.set(this.state);
        this.drawArms();
        this.edited();
        this.says.textContent = example.says;
        this.ask();
      },
    }, `${example.profile} at its ${example.kind}`));
    this.chips = element("div", { class: "row examples" }, element("span", { class: "hint" }, "Examples"), chips);
    return this.chips;
  }

  /** Return the state as the fields have it. */
  read() {
    this.state.asked = this.editor.asked;
    return this.state;
  }

  keep() {
    this.app.keep(parametersOf(this.read()));
  }

  edited() {
    this.says.textContent = "";
    this.keep();
  }

  drawArms() {
    const names = this.app.server.usable.map((profile) => profile.name);
    for (const chip of this.chips.querySelectorAll("button")) chip.hidden = !names.includes(chip.dataset.profile);
    this.chips.hidden = !EXAMPLES.some((example) => names.includes(example.profile));
    this.columns = this.state.arms.map((arm, index) => this.columns.find((column) => column.arm === arm) ?? new ArmColumn(arm, index, names, {
      changed: () => this.armChanged(),
      remove: (column) => this.removeArm(column),
      noticed: (column, at, target) => this.noticed(column, at, target),
    }));
    this.columns.forEach((column, index) => {
      column.names = names;
      column.draw(index, this.columns.length > 2);
      if (!column.view) column.clear("No answer yet.");
    });
    refill(this.arms, this.columns.map((column) => column.node));
    this.arms.dataset.count = this.columns.length;
    this.addButton.disabled = this.columns.length >= MOST_ARMS;
  }

  addArm() {
    const { profiles } = this.state.arms.at(-1);
    const used = new Set(this.state.arms.map(labelOf));
    const name = profiles === BASELINE ? this.usualArms()[1].profiles : profiles;
    const strength = [1, 0.5, 1.5, 2, -1].find((each) => !used.has(labelOf({ profiles: name, strength: each }))) ?? 1;
    this.state.arms.push({ profiles: name, strength });
    this.drawArms();
    this.armChanged();
  }

  removeArm(column) {
    this.state.arms = this.state.arms.filter((arm) => arm !== column.arm);
    this.drawArms();
    this.armChanged();
  }

  armChanged() {
    this.keep();
    clearTimeout(this.timer);
    if (this.run) this.timer = setTimeout(() => this.ask(), SOON); // what is shown is of the arms as they were
  }

  clear() {
    this.run = null;
    refill(this.notices);
    this.verdict.textContent = "";
    this.aligned.clear();
    this.card.hide();
  }

  stop() {
    clearTimeout(this.timer);
    this.run?.stop();
  }

  async ask() {
    this.stop();
    this.keep();
    this.clear();
    for (const column of this.columns) column.begin();
    this.runButton.textContent = "Stop";
    const run = new Run(this.read());
    run.columns = this.columns; // whichever arms there will be by its end
    this.run = run;
    const current = () => this.run === run;
    try {
      await run.follow(() => current() && this.progress(run));
      if (current()) this.finished(run);
    } catch (error) {
      if (current()) refill(this.notices, failureNotice(error, () => this.ask()));
    }
    if (!current()) return;
    this.runButton.textContent = "Run";
    for (const column of run.columns) column.end();
  }

  progress(run) {
    run.answers.forEach((answer, k) => {
      run.columns[k].extend(answer);
      run.columns[k].view.mark(run.comparison.marks[k]);
    });
    this.aligned.update(run);
    this.verdict.textContent = run.isScoring ? "Scoring each arm's tokens under the others …" : "";
  }

  finished(run) {
    this.progress(run);
    const { first } = run.comparison;
    const labels = run.answers.map((answer) => answer.label);
    const names = labels.length === 2 ? "Both arms" : `All ${labels.length} arms`;
    this.verdict.textContent = run.isStopped ? "Stopped." : first === null ? `${names} give the same answer.` : `The arms diverge at token ${first + 1}.`;
    this.app.announce(`${names} have answered. ${this.verdict.textContent}`);
  }

  noticed(column, at, target) {
    const run = this.run;
    const k = run ? run.columns.indexOf(column) : -1;
    if (at === null || k < 0) {
      for (const each of this.columns) each.view?.point(null);
      this.card.hide();
      return;
    }
    const answer = run.answers[k];
    run.columns.forEach((each, other) => each.view.point(other === k ? null : run.comparison.partnerOf(k, at, other)));
    this.card.show(target, {
      token: answer.tokens[at], at, count: answer.tokens.length, label: answer.label, end: answer.isEnd(at),
      probabilities: run.answers.map((each, under) => ({ label: each.label, index: under, probability: run.comparison.probability(k, at, under) })),
    });
  }

  curve() {
    const parameters = new URLSearchParams();
    askedToParameters(this.read().asked, parameters);
    const steered = this.state.arms.find((arm) => arm.profiles !== BASELINE);
    if (steered) parameters.set("profile", steered.profiles);
    this.app.go("curve", parameters);
  }

  async copyLink() {
    this.keep();
    this.linkButton.textContent = (await copied(location.href)) ? "Copied" : "Copy the address";
    setTimeout(() => {
      this.linkButton.textContent = "Copy link";
    }, 1500);
  }
}
