// The result of a run on the screen: rates, differences, and the items that flipped.

import { element, refill } from "../dom.js";
import { intervalBar } from "../charts.js";
import { pText, percent, questionOf, signed } from "./report.js";
import { markedWords } from "./words.js";

const MOST_FLIPS = 200; // on the screen; the download has all
const FILTERS = { all: "All", gained: "Gained", lost: "Lost" };
const VERDICTS = { higher: "good", lower: "bad", "not shown": "" };

/** Shows results as they come. */
export class ResultView {
  filter = "all";

  constructor() {
    this.rates = element("div", { class: "rates" });
    this.comparisons = element("div", { class: "stack" });
    this.flips = element("div", { class: "flips" });
    this.title = element("h2", { id: "flips-title" });
    this.choice = element("fieldset", { class: "choice", "aria-label": "Flips to show" }, Object.entries(FILTERS).map(([name, title]) => element("label", {},
      element("input", { type: "radio", name: "flips", value: name, checked: name === this.filter, onchange: () => this.choose(name) }), element("span", {}, title))));
    this.node = element("div", { class: "stack", hidden: true },
      element("section", { class: "card stack", "aria-labelledby": "result-title" }, element("h2", { id: "result-title" }, "Right answers"), this.rates, this.comparisons),
      element("section", { class: "card stack", "aria-labelledby": "flips-title" }, element("div", { class: "row apart" }, this.title, this.choice), this.flips));
  }

  /** Show the result of `run` so far. */
  show(run, result) {
    this.node.hidden = !result.items;
    this.run = run;
    this.result = result;
    refill(this.rates, result.rates.map((one, k) => [
      element("span", { class: `arm-name arm-${k}` }, one.label),
      intervalBar({ value: one.rate, low: one.interval[0], high: one.interval[1], tone: `arm-${k}` }),
      element("strong", { class: "number" }, one.rate === null ? "" : percent(one.rate)),
      element("span", { class: "number hint" }, `${one.right} of ${result.items} · ${one.interval.map(percent).join(" to ")}`),
    ]));
    refill(this.comparisons, result.comparisons.map((one) => element("p", { class: "row", "data-comparison": one.label },
      element("strong", {}, one.label), element("span", { class: `badge ${VERDICTS[one.verdict]}` }, one.verdict),
      element("span", { class: "number" }, `${signed(one.difference)} points against ${one.reference}, between ${signed(one.interval[0])} and ${signed(one.interval[1])}`),
      element("span", { class: "number hint" }, `${one.gained} gained, ${one.lost} lost, p ${one.adjusted === null ? "" : "(Holm) "}= ${pText(one.adjusted ?? one.p)}`))));
    this.drawFlips();
  }

  choose(name) {
    this.filter = name;
    this.drawFlips();
  }

  drawFlips() {
    const { flips } = this.result;
    const chosen = flips.filter((flip) => this.filter === "all" || flip.isGain === (this.filter === "gained"));
    this.title.textContent = `${flips.length} ${flips.length === 1 ? "item" : "items"} flipped`;
    const names = chosen.slice(0, MOST_FLIPS).map(nameOf);
    const shown = new Map([...this.flips.querySelectorAll("[data-flip]")].map((node) => [node.dataset.flip, node]));
    refill(this.flips, // what is on the screen already stays, so that it can be read while more comes
      names.map((name, at) => shown.get(name) ?? flipNode(chosen[at], this.run.labels, name)),
      chosen.length ? null : element("p", { class: "muted" }, flips.length ? "None of this kind." : "Every arm is right on the same items so far."),
      chosen.length > MOST_FLIPS ? element("p", { class: "hint" }, `and ${chosen.length - MOST_FLIPS} more, which the reports have`) : null);
  }
}

function nameOf({ record, k }) {
  return `${record.item.line}-${k}`;
}

function flipNode({ record: { item, answers }, k, isGain }, labels, name) {
  const [before, after] = markedWords(answers[0].text, answers[k].text);
  const answer = (label, at, pieces, right) => element("div", { class: `flip-answer arm-${at}` },
    element("p", { class: "row" }, element("span", { class: "arm-name" }, label), element("span", { class: right ? "badge good" : "badge bad" }, right ? "right" : "wrong")),
    element("pre", {}, pieces.map(({ text, differs }) => (differs ? element("mark", {}, text) : text))));
  return element("article", { class: "flip", "data-flip": name, "aria-label": `Item ${item.id}, ${isGain ? "gained" : "lost"} by ${labels[k]}` },
    element("p", { class: "row" }, element("strong", {}, item.id), element("span", { class: isGain ? "badge good" : "badge bad" }, isGain ? "gained" : "lost"),
      item.tags.map((tag) => element("span", { class: "badge" }, tag))),
    element("pre", { class: "question", tabindex: "0", "aria-label": "Question" }, questionOf(item)),
    element("p", { class: "hint" }, "expected ", item.expected.map((one, at) => [at ? " or " : "", element("code", {}, one)])),
    element("div", { class: "flip-answers" }, answer(labels[0], 0, before, answers[0].right), answer(labels[k], k, after, answers[k].right)));
}
