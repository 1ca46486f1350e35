// Data set: a file's items under all arms, graded as the answers come, and the report to take away.

import { element, refill } from "../dom.js";
import { BASELINE, armOf, labelOf } from "../arm.js";
import { urlOf } from "../api.js";
import { failureNotice } from "../notice.js";
import { saved } from "../download.js";
import { ArmsForm } from "../dataset/arms_form.js";
import { GRADERS, whyNotGraded } from "../dataset/grading.js";
import { Unusable, readDataset } from "../dataset/reading.js";
import { exampleFile } from "../dataset/example.js";
import { Run } from "../dataset/run.js";
import { resultOf } from "../dataset/result.js";
import { ResultView } from "../dataset/result_view.js";
import { itemsCsv, markdownOf, questionOf, recordOf } from "../dataset/report.js";

const NUMBERS = {
  max_tokens: { title: "Max tokens", standard: 64, min: 1, max: 100_000, step: 1 },
  temperature: { title: "Temperature", standard: 0, min: 0, max: 2, step: 0.1 },
  at_once: { title: "Requests at once", standard: 4, min: 1, max: 16, step: 1 },
};
const DRAW_EVERY = 200; // milliseconds
const SHOWN_FAULTS = 50;

/** Open the tab in `panel`; see tabs.js. */
export function open(panel, app) {
  return new DatasetTab(panel, app);
}

class DatasetTab {
  dataset = null;
  run = null;
  shown = null;

  constructor(panel, app) {
    this.app = app;
    this.file = element("input", { type: "file", id: "dataset-file", accept: ".jsonl,.ndjson,.json,.csv,.tsv,.txt", class: "unseen", onchange: () => this.take(this.file.files[0]) });
    this.drop = element("label", { for: "dataset-file", class: "drop" },
      element("strong", {}, "Drop a data set here, or choose a file"),
      element("span", { class: "hint" }, "JSON Lines or CSV with prompt or messages, and expected. It stays in this browser; its prompts go to the server as requests."));
    this.about = element("div", { class: "stack" });
    this.notices = element("div", {});
    this.arms = new ArmsForm(() => this.keep());
    this.grader = element("select", { id: "dataset-grader", onchange: () => this.graderChanged() }, Object.entries(GRADERS).map(([name, { title }]) => element("option", { value: name }, `${name}: ${title}`)));
    this.numbers = Object.fromEntries(Object.entries(NUMBERS).map(([name, { title, standard, ...range }]) => [name, element("input", {
      type: "number", id: `dataset-${name}`, ...range, value: standard, onchange: () => this.keep(),
    })]));
    this.runButton = element("button", { type: "button", class: "primary", disabled: true, onclick: () => (this.run?.isRunning ? this.stop() : this.begin()) }, "Run");
    this.againButton = element("button", { type: "button", hidden: true, onclick: () => this.goOn() }, "Go on");
    this.progress = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Items that are answered" });
    this.state = element("span", { class: "hint number", role: "status" });
    this.results = new ResultView();
    this.downloads = element("div", { class: "row", hidden: true }, element("span", { class: "hint" }, "Report"),
      this.download("JSON", "report.json", "application/json", (run, about) => `${JSON.stringify(recordOf(run, about), null, 2)}\n`),
      this.download("CSV", "items.csv", "text/csv", itemsCsv),
      this.download("Markdown", "report.md", "text/markdown", markdownOf));
    panel.append(this.form(), this.notices, this.results.node);
    this.acceptDrops(panel);
  }

  form() {
    const field = (id, title, control) => element("div", { class: "field" }, element("label", { for: id }, title), control);
    return element("div", { class: "card stack" },
      element("div", { class: "row apart" }, element("h2", {}, "Run a data set"),
        element("button", { type: "button", class: "chip", onclick: () => this.takeExample() }, "Use an example of 32 prompts")),
      this.file, this.drop, this.about,
      element("div", { class: "run-form" },
        element("fieldset", { class: "plain" }, element("legend", {}, "Arms; the others are compared with the first"), this.arms.node),
        element("div", { class: "fields" }, field("dataset-grader", "An answer is right if it is", this.grader),
          Object.entries(NUMBERS).map(([name, { title }]) => field(`dataset-${name}`, title, this.numbers[name])))),
      element("div", { class: "row" }, this.runButton, this.againButton, this.progress, this.state, element("span", { class: "spread" }), this.downloads));
  }

  download(title, name, type, make) {
    return element("button", { type: "button", onclick: () => {
      const about = { model: this.app.server.model, where: urlOf("") };
      saved(`${this.run.dataset.name.replace(/\.[^.]*$/, "")}-${name}`, new Blob([make(this.run, about)], { type: `${type};charset=utf-8` }));
    } }, title);
  }

  show(parameters) {
    const names = this.app.server.usable.map((profile) => profile.name);
    const given = parameters.getAll("arm").slice(0, 4).map(armOf);
    if (given.length > 1 || !this.arms.arms.length) {
      const usual = this.app.server.has("parentheses") ? "parentheses" : names[0] ?? BASELINE;
      this.arms.set(given.length > 1 ? given : [{ profiles: BASELINE, strength: 1 }, { profiles: usual, strength: 1 }], names);
    }
    if (parameters.get("grader") in GRADERS) this.grader.value = parameters.get("grader");
    for (const [name, { standard }] of Object.entries(NUMBERS)) if (parameters.has(name)) this.numbers[name].value = Number(parameters.get(name)) || standard;
    this.keep();
  }

  keep() {
    const parameters = new URLSearchParams(this.arms.arms.map((arm) => ["arm", labelOf(arm)]));
    if (this.grader.value !== Object.keys(GRADERS)[0]) parameters.set("grader", this.grader.value);
    for (const [name, { standard }] of Object.entries(NUMBERS)) if (this.number(name) !== standard) parameters.set(name, this.number(name));
    this.app.keep(parameters);
  }

  number(name) {
    const { standard, min, max } = NUMBERS[name];
    const value = Number(this.numbers[name].value);
    return this.numbers[name].value === "" || !Number.isFinite(value) ? standard : Math.min(max, Math.max(min, value));
  }

  graderChanged() {
    this.keep();
    if (this.dataset) this.describe();
  }

  acceptDrops(panel) {
    let depth = 0; // of elements that the file has been dragged into
    const mark = (change) => {
      depth = change === null ? 0 : depth + change;
      this.drop.classList.toggle("over", depth > 0);
    };
    panel.addEventListener("dragenter", () => mark(1));
    panel.addEventListener("dragleave", () => mark(-1));
    panel.addEventListener("dragover", (event) => event.preventDefault());
    panel.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(null);
      if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
    });
  }

  takeExample() {
    const { name, bytes } = exampleFile();
    this.read(name, bytes);
  }

  async take(file) {
    if (!file) return;
    this.file.value = ""; // so that the same file can be chosen again after a change
    this.read(file.name, new Uint8Array(await file.arrayBuffer()));
  }

  read(name, bytes) {
    this.stop();
    this.dataset = null;
    this.run = null;
    refill(this.notices);
    this.results.node.hidden = this.downloads.hidden = true;
    this.progress.hidden = this.againButton.hidden = true;
    this.state.textContent = "";
    try {
      this.dataset = readDataset(name, bytes);
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      this.runButton.disabled = true;
      refill(this.about, element("p", { class: "notice bad", role: "alert" }, error.message));
      return;
    }
    this.describe();
  }

  describe() {
    const { name, items, faults } = this.dataset;
    const ungraded = items.flatMap((item) => {
      const reason = whyNotGraded(item, this.grader.value);
      return reason ? [{ line: item.line, reason }] : [];
    });
    const lines = new Set(ungraded.map((fault) => fault.line));
    this.items = items.filter((item) => !lines.has(item.line));
    const left = [...faults, ...ungraded].sort((one, other) => one.line - other.line);
    this.runButton.disabled = !this.items.length;
    refill(this.about,
      element("p", { class: "row" }, element("strong", {}, name), element("span", {}, counted(this.items.length, "item")),
        left.length ? element("span", { class: "badge warn" }, `${counted(left.length, "line")} left out`) : null),
      left.length ? element("details", {}, element("summary", {}, "Lines that are left out"),
        element("ul", { class: "faults" }, left.slice(0, SHOWN_FAULTS).map((fault) => element("li", {}, `line ${fault.line}: ${fault.reason}`)),
          left.length > SHOWN_FAULTS ? element("li", {}, `and ${left.length - SHOWN_FAULTS} more`) : null)) : null,
      this.items.length ? element("details", {}, element("summary", {}, "The first item"), element("pre", { class: "question" }, questionOf(this.items[0])),
        element("p", { class: "hint" }, "expected ", this.items[0].expected.map((one) => element("code", {}, one)))) : null);
    this.app.announce(`${name}: ${this.items.length} items, ${left.length} lines left out.`);
  }

  begin() {
    const { labels } = this.arms;
    if (labels.length < 2) {
      refill(this.notices, element("p", { class: "notice bad", role: "alert" }, "The arms are the same; choose two that differ."));
      return;
    }
    this.run = new Run({
      dataset: this.dataset, items: this.items, labels, grader: this.grader.value,
      maxTokens: this.number("max_tokens"), temperature: this.number("temperature"), atOnce: this.number("at_once"),
    });
    this.results.node.hidden = true;
    this.goOn();
  }

  async goOn() {
    const { run } = this;
    this.told = 0;
    refill(this.notices);
    this.runButton.textContent = "Stop";
    this.againButton.hidden = true;
    this.progress.hidden = this.downloads.hidden = false;
    this.started = performance.now();
    this.answered = 0;
    this.draw(run);
    try {
      await run.follow(() => {
        this.answered += 1;
        this.drawSoon(run);
      });
    } catch (error) {
      if (this.run === run) refill(this.notices, failureNotice(error, () => this.goOn()));
    }
    if (this.run !== run) return;
    this.draw(run);
    this.runButton.textContent = "Run";
    this.againButton.hidden = !run.open.length;
    this.app.announce(`${run.records.size} of ${run.items.length} items are answered.`);
  }

  stop() {
    this.run?.stop();
  }

  drawSoon(run) {
    this.shown ??= setTimeout(() => {
      this.shown = null;
      if (this.run === run) this.draw(run);
    }, DRAW_EVERY);
  }

  draw(run) {
    const done = run.records.size + run.refused.length;
    this.progress.value = run.items.length ? done / run.items.length : 1;
    const speed = this.answered / ((performance.now() - this.started) / 1000);
    this.state.textContent = [`${done} of ${run.items.length} items`, run.isRunning && speed ? `${speed.toFixed(1)} a second` : null,
      run.refused.length ? `${run.refused.length} refused` : null, !run.isRunning && run.open.length && done ? "stopped" : null].filter(Boolean).join(" · ");
    if (run.refused.length && this.told !== run.refused.length) {
      this.told = run.refused.length; // what is open stays open as long as it says the same
      refill(this.notices, element("details", { class: "notice warn" }, element("summary", {}, `The server refused ${counted(run.refused.length, "item")}`),
        element("ul", { class: "faults" }, run.refused.slice(0, SHOWN_FAULTS).map((fault) => element("li", {}, `line ${fault.line}: ${fault.reason}`)))));
    }
    this.results.show(run, resultOf(run));
  }
}

function counted(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
