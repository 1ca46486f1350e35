// What was measured when a profile was fitted: right answers before and after, and side effects on other text.

import { element } from "../dom.js";
import { numberText } from "./components.js";

const LIMIT = 0.01; // an increase of the NLL by more is a flag of the API

/** Return the right answers on test prompts before and after, as a table; null where the profile has none. */
export function accuracyTable({ test = {} } = {}) {
  const { before = {}, after = {} } = test;
  const answers = Object.keys(after).filter((answer) => Number.isFinite(after[answer]) && Number.isFinite(before[answer]));
  if (!answers.length) return null;
  return element("div", { class: "scroll" }, element("table", {},
    element("caption", {}, "Right answers on test prompts, in percent"),
    head("answer", "without", "with", ""),
    element("tbody", {}, answers.map((answer) => element("tr", {},
      element("th", { scope: "row", class: "mono" }, answer),
      element("td", { class: "number" }, before[answer].toFixed(1)),
      element("td", { class: `number ${toneOf(after[answer] - before[answer])}` }, after[answer].toFixed(1)),
      element("td", { class: "wide-cell" }, dumbbell(before[answer], after[answer])))))));
}

/** Return the side effects on texts as a table; null where they were not measured. What has a kind is no text. */
export function sideEffectTable(effects) {
  const texts = Object.entries(effects ?? {}).filter(([, one]) => !one?.kind && Number.isFinite(one?.nll_before) && Number.isFinite(one?.nll_after));
  if (!texts.length) return null;
  return element("div", { class: "scroll" }, element("table", {},
    element("caption", {}, "Other text that it was not fitted on"),
    head("text", "tokens", "NLL without", "NLL with", "change", "next token right", "same choice", "KL"),
    element("tbody", {}, texts.map(([name, one]) => {
      const change = one.nll_after / one.nll_before - 1;
      return element("tr", {},
        element("th", { scope: "row" }, name),
        element("td", { class: "number" }, one.tokens?.toLocaleString("en") ?? ""),
        element("td", { class: "number" }, one.nll_before.toFixed(4)),
        element("td", { class: "number" }, one.nll_after.toFixed(4)),
        element("td", { class: change > LIMIT ? "number worse" : "number" }, `${change < 0 ? "−" : "+"}${Math.abs(100 * change).toFixed(2)}%`),
        element("td", { class: "number" }, Number.isFinite(one.correct_before) ? `${percent(one.correct_before)} → ${percent(one.correct_after)}` : ""),
        element("td", { class: "number" }, Number.isFinite(one.agreement) ? percent(one.agreement) : ""),
        element("td", { class: "number" }, Number.isFinite(one.divergence) ? one.divergence.toFixed(4) : ""));
    }))));
}

/** Return the shares of last words and of minimal pairs that are right, the largest loss first; null where they were not measured. */
export function shareTable(effects) {
  const pairs = effects?.["minimal pairs"];
  const grammar = Object.entries(pairs?.phenomena ?? {}).map(([name, one]) => [`Grammar: ${name}`, one, `${one.pairs} pairs`]);
  const words = effects?.["last words"];
  const shares = [
    ...(words ? [["Last words of sentences", words, `${words.words} words`]] : []),
    ...(pairs ? [["Grammar, all", pairs, `${pairs.pairs} pairs`]] : []),
    ...grammar,
  ].filter(([, one]) => Number.isFinite(one.correct_before) && Number.isFinite(one.correct_after));
  if (!shares.length) return null;
  const gain = ([, one]) => one.correct_after - one.correct_before;
  return element("div", { class: "scroll" }, element("table", {},
    element("caption", {}, "Words that are predicted whole, and sentences that are likelier than a wrong one; the largest loss first"),
    head("what", "count", "without", "with", "95% interval"),
    element("tbody", {}, shares.sort((one, other) => gain(one) - gain(other)).map(([name, one, count]) => element("tr", {},
      element("th", { scope: "row" }, name),
      element("td", { class: "number" }, count),
      element("td", { class: "number" }, percent(one.correct_before)),
      element("td", { class: one.correct_interval?.[1] < 0 ? "number worse" : "number" }, percent(one.correct_after)),
      element("td", { class: "number" }, one.correct_interval ? one.correct_interval.map(points).join(" to ") : ""))))));
}

function points(share) {
  return `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(1)}`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

/** Return facts as a list of terms; those without a value are left out. */
export function factList(facts) {
  return element("dl", { class: "facts" }, facts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** Return what a profile was fitted on, and how. */
export function originOf(detail) {
  const { model, provenance } = detail.profile;
  const [, where] = detail.summary.split("; where ");
  const differs = !where && Boolean(detail.when); // by condition: then the summary has what is done under each
  return [
    ["Takes effect", where && `where ${where}`],
    ["Changes", differs ? detail.summary : null],
    ["Fitted on", `${model.id} (${model.architecture}: ${model.layers} layers of ${model.heads} heads and ${model.neurons.toLocaleString("en")} neurons)`],
    ["Task", provenance?.task],
    ["Prompts", provenance && Object.entries(provenance.split_sizes).map(([split, size]) => `${size.toLocaleString("en")} ${split}`).join(", ")],
    ["Command", provenance && element("code", {}, provenance.command)],
    ["Seed", provenance && numberText(provenance.seed)],
    ["Kept in", { shipped: "the package", folder: "the server's folder", memory: "memory, until the server ends" }[detail.storage]],
    ["Content hash", element("code", { class: "hash" }, detail.content_hash)],
  ];
}

function toneOf(change) {
  return change > 0 ? "better" : change < 0 ? "worse" : "";
}

function head(...titles) {
  return element("thead", {}, element("tr", {}, titles.map((title, at) =>
    title ? element("th", { scope: "col", class: at ? "number" : null }, title) : element("td", {}))));
}

function dumbbell(before, after) {
  const bar = element("span", { class: "dumbbell", "aria-hidden": "true" });
  const line = element("span", { class: after < before ? "line fell" : "line" });
  line.style.left = `${Math.min(before, after)}%`;
  line.style.width = `${Math.abs(after - before)}%`;
  const ends = [["before", before], ["after", after]].map(([name, value]) => {
    const end = element("span", { class: `end ${name}` });
    end.style.left = `${value}%`;
    return end;
  });
  bar.append(line, ...ends);
  return bar;
}
