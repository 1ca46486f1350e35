// The report of an experiment: arms, differences, guardrails, the sample ratio, and the outcome over time.

import { element } from "../dom.js";
import { intervalBar, timeChart } from "../charts.js";

const VERDICTS = { better: "good", worse: "bad", undecided: "" };
const STATUSES = { kept: "good", violated: "bad", undecided: "" };

/** How values of the outcome are written: rates in percent. */
export function writerOf(experiment) {
  return experiment.outcome.kind === "rate" ? (value) => `${round(100 * value, 1)}%` : (value) => round(value, 3);
}

/** How differences are written: those of rates in percentage points. */
function differenceWriterOf(experiment) {
  const text = experiment.outcome.kind === "rate" ? (value) => `${round(100 * value, 1)}` : (value) => round(value, 3);
  return (value) => (value > 0 ? `+${text(value)}` : text(value));
}

/** Return what says that the figures cannot be trusted. */
export function warningsOf(report) {
  return report.warnings.map((warning) => element("p", { class: report.sample_ratio.mismatch ? "notice bad" : "notice warn" }, sentence(warning)));
}

/** Return the arms with their rates. */
export function armsView(report) {
  const { experiment } = report;
  const write = writerOf(experiment);
  const { lower, upper } = experiment.outcome;
  return element("section", { class: "card stack", "aria-labelledby": "rates-title" },
    element("h2", { id: "rates-title" }, `${experiment.outcome.name} by arm`),
    element("div", { class: "rates" }, report.arms.map((arm, k) => [
      element("span", { class: `arm-${k}` }, element("span", { class: "arm-name" }, arm.name), element("span", { class: "hint" }, ` ${arm.steering}`)),
      intervalBar({ value: arm.mean, low: arm.interval[0], high: arm.interval[1], least: lower, most: upper, tone: `arm-${k}` }),
      element("strong", { class: "number" }, arm.mean === null ? "no outcome" : write(arm.mean)),
      element("span", { class: "number hint" }, `${write(arm.interval[0])} to ${write(arm.interval[1])}`),
    ])),
    element("div", { class: "scroll" }, table(["arm", "weight", "units", "exposures", "outcomes", "latency", "first token", "errors", "tokens"],
      report.arms.map((arm, k) => [
        element("span", { class: `arm-name arm-${k}` }, arm.name), `${round(100 * arm.weight, 1)}%`, whole(arm.units), whole(arm.exposures), whole(arm.outcomes),
        seconds(arm.latency), seconds(arm.time_to_first_token), arm.errors === null ? "" : `${round(100 * arm.errors, 2)}%`, arm.completion_tokens === null ? "" : round(arm.completion_tokens, 1),
      ]))));
}

/** Return the differences from the control. */
export function comparisonsView(report) {
  const write = differenceWriterOf(report.experiment);
  const unit = report.experiment.outcome.kind === "rate" ? " points" : "";
  return element("section", { class: "card stack", "aria-labelledby": "differences-title" },
    element("h2", { id: "differences-title" }, `Difference from ${report.arms[0].name}`),
    report.comparisons.map((one) => {
      const done = Math.min(1, one.units_needed ? one.units / one.units_needed : 0);
      const progress = element("progress", { max: 1, value: done, "aria-label": `Units of the number that is needed for ${one.treatment}` });
      return element("div", { class: "stack difference" },
        element("p", { class: "row" },
          element("strong", {}, one.treatment),
          element("span", { class: `badge ${VERDICTS[one.verdict]}` }, one.verdict),
          element("span", { class: "number" }, one.difference === null ? "not enough units yet"
            : `${write(one.difference)}${unit}, between ${write(one.interval[0])} and ${write(one.interval[1])}`)),
        element("p", { class: "row hint" }, progress,
          `${whole(one.units)} of about ${whole(one.units_needed)} units that a difference of ${write(report.experiment.minimum_effect)}${unit} needs`));
    }),
    element("p", { class: "hint" }, "The intervals hold at every look: an experiment may be ended as soon as one excludes 0."));
}

/** Return the outcome over time, and the differences; null without points. */
export function seriesView(report, series) {
  if (!series.points.length) return null;
  const { experiment } = report;
  const lines = report.arms.map((arm, k) => ({ tone: `arm-${k}`, points: series.points.map((point) => pointOf(point.at, point.arms[k].mean, point.arms[k].units ? point.arms[k].interval : null)) }));
  const differences = report.comparisons.map((one, k) => ({ tone: `arm-${k + 1}`, points: series.points.map((point) => pointOf(point.at, point.comparisons[k].difference, point.comparisons[k].interval)) }));
  const span = experiment.outcome.upper - experiment.outcome.lower;
  const within = (value) => (value === null ? null : Math.min(span, Math.max(-span, value)));
  for (const point of differences.flatMap((line) => line.points)) Object.assign(point, { low: within(point.low), high: within(point.high) });
  const sign = experiment.outcome.better === "lower" ? -1 : 1;
  const rates = experiment.outcome.kind === "rate" ? { least: 0, most: 1 } : {};
  const means = timeChart({ lines, format: writerOf(experiment), label: `${experiment.outcome.name} of each arm over time`, ...rates });
  const changes = timeChart({
    lines: differences, format: differenceWriterOf(experiment), label: `Difference from ${report.arms[0].name} over time`,
    marks: [{ value: 0, tone: "zero" }, { value: sign * experiment.minimum_effect, tone: "aim" }],
  });
  return element("section", { class: "card stack", "aria-labelledby": "series-title" },
    element("h2", { id: "series-title" }, "Over time"),
    key(report.arms),
    element("div", { class: "charts" },
      element("figure", {}, element("figcaption", {}, `${experiment.outcome.name}: means and their intervals`), means),
      changes ? element("figure", {}, element("figcaption", {}, `Difference from ${report.arms[0].name}; dashed: the least that matters`), changes)
        : element("p", { class: "muted" }, "There are not enough units for a difference yet.")));
}

/** Return the guardrails; null if there are none. */
export function guardrailsView(report) {
  if (!report.guardrails.length) return null;
  const number = (value) => (value === null ? "" : round(value, 4));
  return element("section", { class: "card stack", "aria-labelledby": "guardrails-title" },
    element("h2", { id: "guardrails-title" }, "Guardrails"),
    element("div", { class: "scroll" }, table(["metric", "arm", "its mean", "control", "increase", "interval", "limit", "status"], report.guardrails.map((one) => [
      one.metric, one.treatment, number(one.treatment_mean), number(one.control_mean), number(one.increase),
      one.interval === null ? "" : `${number(one.interval[0])} to ${number(one.interval[1])}`, number(one.limit),
      element("span", { class: `badge ${STATUSES[one.status]}` }, one.status),
    ]))));
}

/** Return whether units are divided by the weights. */
export function sampleRatioView(report) {
  const { sample_ratio: ratio, arms } = report;
  return element("section", { class: "card stack", "aria-labelledby": "ratio-title" },
    element("div", { class: "row" }, element("h2", { id: "ratio-title" }, "Sample ratio"),
      element("span", { class: ratio.mismatch ? "badge bad" : "badge good" }, ratio.mismatch ? "mismatch" : "as the weights say"),
      element("span", { class: "hint number" }, `p = ${ratio.p_value < 0.0001 ? "< 0.0001" : round(ratio.p_value, 4)}`)),
    element("div", { class: "scroll" }, table(["arm", "units expected", "units seen"], arms.map((arm, k) => [
      element("span", { class: `arm-name arm-${k}` }, arm.name), round(ratio.expected[arm.name] ?? 0, 1), whole(ratio.observed[arm.name] ?? 0),
    ]))));
}

function key(arms) {
  return element("p", { class: "key" }, arms.map((arm, k) => element("span", { class: `arm-${k}` }, element("span", { class: "dot", "aria-hidden": "true" }), arm.name)));
}

function pointOf(at, value, interval) {
  return { at, value, low: interval ? interval[0] : null, high: interval ? interval[1] : null };
}

function table(titles, rows) {
  return element("table", {},
    element("thead", {}, element("tr", {}, titles.map((title, at) => element("th", { scope: "col", class: at ? "number" : null }, title)))),
    element("tbody", {}, rows.map((cells) => element("tr", {}, cells.map((cell, at) => element(at ? "td" : "th", at ? { class: "number" } : { scope: "row" }, cell))))));
}

function round(value, digits) {
  return String(Math.round(value * 10 ** digits) / 10 ** digits).replace("-", "−");
}

function whole(value) {
  return Math.round(value).toLocaleString("en");
}

function seconds(value) {
  return value === null ? "" : `${round(value, 3)} s`;
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
}
