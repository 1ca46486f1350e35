// The report of a run as JSON, CSV and Markdown, with the names of the reports of `steer ab`.

import { csvOf } from "./csv.js";
import { resultOf } from "./result.js";

const VERSION = 1;

/** Return all figures of a run, as `steer ab` writes report.json. */
export function recordOf(run, about) {
  const result = resultOf(run);
  const span = ([low, high]) => ({ low, high });
  const common = { grader: run.grader, tag: null, items: result.items };
  const applied = run.steering?.arms ?? [];
  return {
    version: VERSION,
    settings: {
      dataset: run.dataset.name, arms: Object.fromEntries(run.labels.map((label) => [label, label])),
      described: Object.fromEntries(applied.map((arm) => [arm.arm, arm.profiles])),
      model: about.model, where: about.where, temperature: run.temperature, max_tokens: run.maxTokens, seed: "the line's number", repeats: 1,
    },
    dataset: { name: run.dataset.name, items: run.items.length },
    arms: result.rates.map((one) => ({ ...common, arm: one.label, mean: one.rate, interval: span(one.interval), yes_no: true })),
    comparisons: result.comparisons.map((one) => ({
      ...common, arm: one.label, reference: one.reference, difference: one.difference, interval: span(one.interval),
      interval_method: "Tango's score interval with a correction of half an item", p_value: one.p, adjusted_p: one.adjusted,
      test: "exact McNemar test", wins: one.gained, losses: one.lost, ties: result.items - one.gained - one.lost, verdict: one.verdict,
    })),
    flips: result.flips.map(({ record, k, isGain }) => ({
      item: record.item.id, line: record.item.line, reference: run.labels[0], arm: run.labels[k], difference: isGain ? 1 : -1,
    })),
    unusable_lines: run.dataset.faults,
    refused_lines: run.refused,
    unanswered_lines: run.open.map((item) => ({ line: item.line, reason: "was not asked before the run was stopped" })),
  };
}

/** Return every answer as a row of CSV, as `steer ab` writes items.csv. */
export function itemsCsv(run) {
  const header = ["id", "line", "tags", "question", "expected", "arm", "repeat", "answer", `grade:${run.grader}`, "finish_reason", "tokens", "seconds"];
  const rows = [...run.records.values()].flatMap(({ item, answers, seconds }) => answers.map((answer, k) => [
    item.id, item.line, item.tags.join(";"), questionOf(item), item.expected.join("\n"), run.labels[k], 0, answer.text,
    answer.right ? 1 : 0, answer.finish, answer.tokens, seconds.toFixed(3),
  ]));
  return csvOf([header, ...rows]);
}

/** Return the report as Markdown; text of the data set and of answers is escaped. */
export function markdownOf(run, about) {
  const result = resultOf(run);
  const lines = [
    `# ${escaped(run.dataset.name)}: ${run.labels.map(escaped).join(", ")}`, "",
    `${result.items} items, graded by ${run.grader}, on ${escaped(about.model)}. Temperature ${run.temperature}, at most ${run.maxTokens} tokens.`, "",
    ...table(["arm", "right", "rate", "95% interval (Wilson)"], result.rates.map((one) => [escaped(one.label), one.right, percent(one.rate ?? 0), one.interval.map(percent).join(" to ")])), "",
    ...table(["difference", "points", "95% interval (Tango)", "gained", "lost", "p (exact McNemar)", "verdict"], result.comparisons.map((one) => [
      `${escaped(one.label)} - ${escaped(one.reference)}`, signed(one.difference), one.interval.map(signed).join(" to "), one.gained, one.lost, pText(one.adjusted ?? one.p), one.verdict,
    ])), "",
    `## ${result.flips.length} items that flipped`, "",
    ...table(["item", "question", "expected", escaped(run.labels[0]), "arm", "its answer", ""], result.flips.map(({ record: { item, answers }, k, isGain }) => [
      escaped(item.id), escaped(questionOf(item)), escaped(item.expected.join(" or ")), escaped(answers[0].text), escaped(run.labels[k]), escaped(answers[k].text), isGain ? "gained" : "lost",
    ])),
    ...leftOut("lines that cannot be used", run.dataset.faults), ...leftOut("items that the server refused", run.refused),
  ];
  return `${lines.join("\n")}\n`;
}

/** Return what an item asks, as text. */
export function questionOf(item) {
  return item.prompt ?? item.messages.map((message) => `${message.role}: ${message.content}`).join("\n");
}

/** Return a share in percent. */
export function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

/** Return a difference in percentage points with its sign. */
export function signed(difference) {
  return `${difference > 0 ? "+" : difference < 0 ? "−" : ""}${Math.abs(100 * difference).toFixed(1)}`;
}

/** Return a p-value in a few digits. */
export function pText(p) {
  return p < 0.0001 ? "< 0.0001" : String(Number(p.toPrecision(2)));
}

function leftOut(title, faults) {
  return faults.length ? ["", `## ${faults.length} ${title}`, "", ...faults.map((fault) => ` * line ${fault.line}: ${escaped(fault.reason)}`)] : [];
}

function table(titles, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(titles), line(titles.map(() => "---")), ...rows.map(line)];
}

function escaped(text) {
  return String(text).replace(/[\\`*_{}[\]#|!~]/g, "\\$&").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replace(/\r?\n/g, "<br>");
}
