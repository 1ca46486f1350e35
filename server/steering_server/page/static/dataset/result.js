// What a run says so far: rates of arms, their differences from the first arm, and the items that flipped.

import { differenceInterval, holm, mcnemar, wilson } from "./statistics.js";

const LEVEL = 0.05;

/**
 * Return {items, rates, comparisons, flips} of a run. A rate is {label, right, rate, interval}, a comparison
 * {label, reference, difference, interval, p, adjusted, gained, lost, verdict}, a flip {record, k, isGain}.
 */
export function resultOf(run) {
  const records = [...run.records.values()].sort((one, other) => one.item.line - other.item.line);
  const items = records.length;
  const rates = run.labels.map((label, k) => {
    const right = records.filter((record) => record.answers[k].right).length;
    return { label, right, rate: items ? right / items : null, interval: items ? wilson(right, items) : [0, 1] };
  });
  const found = run.labels.slice(1).map((label, at) => comparisonOf(records, run.labels[0], label, at + 1));
  const adjusted = found.length > 1 ? holm(found.map((one) => one.p)) : found.map(() => null);
  const comparisons = found.map((one, at) => {
    const p = adjusted[at] ?? one.p;
    return { ...one, adjusted: adjusted[at], verdict: p > LEVEL || one.difference === 0 ? "not shown" : one.difference > 0 ? "higher" : "lower" };
  });
  const flips = records.flatMap((record) => run.labels.slice(1).map((_, at) => ({ record, k: at + 1 })))
    .filter(({ record, k }) => record.answers[k].right !== record.answers[0].right)
    .map((flip) => ({ ...flip, isGain: flip.record.answers[flip.k].right }));
  return { items, rates, comparisons, flips };
}

function comparisonOf(records, reference, label, k) {
  const gained = records.filter(({ answers }) => answers[k].right && !answers[0].right).length;
  const lost = records.filter(({ answers }) => !answers[k].right && answers[0].right).length;
  const total = records.length;
  return {
    label, reference, gained, lost, difference: total ? (gained - lost) / total : 0,
    interval: total ? differenceInterval(gained, lost, total) : [-1, 1], p: mcnemar(gained, lost),
  };
}
