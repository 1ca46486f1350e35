// The answers of all arms beside the first one: which tokens belong together, and which differ.

import { align, firstDifference } from "./alignment.js";

/** Alignment of several answers with the first of them. */
export class Comparison {
  /** `whole` says that all answers are complete; until then what is not there yet is no difference. */
  constructor(answers, whole) {
    this.answers = answers;
    const [reference] = answers;
    this.partners = answers.map((answer, k) => (k === 0 ? null : align(reference.tokens, answer.tokens)));
    this.firsts = answers.map((answer, k) => (k === 0 ? null : this.firstOf(reference, answer, whole)));
    this.marks = answers.map((answer, k) => (k === 0 ? this.marksOfReference(whole) : this.marksOf(k, whole)));
  }

  firstOf(reference, answer, whole) {
    const first = firstDifference(reference.tokens, answer.tokens);
    if (first !== null || !whole || reference.tokens.length === answer.tokens.length) return first;
    return Math.min(reference.tokens.length, answer.tokens.length);
  }

  /** The first position at which any answer differs from the first one; null if none does. */
  get first() {
    const found = this.firsts.filter((first) => first !== null);
    return found.length ? Math.min(...found) : null;
  }

  marksOf(k, whole) {
    const marks = [];
    const known = whole ? Infinity : this.answers[0].tokens.length;
    for (let at = 0; at < this.answers[k].tokens.length && at < known; at += 1) {
      if (at === this.firsts[k]) marks[at] = "first";
      else if (this.partners[k][at] < 0) marks[at] = "later";
    }
    return marks;
  }

  // The first answer is marked where it differs from all others: those are marked where they differ from it.
  marksOfReference(whole) {
    const marks = [];
    const matched = this.partners.slice(1).map((partner) => new Set(partner));
    for (let at = 0; at < this.answers[0].tokens.length; at += 1) {
      const differs = matched.every((positions, k) => !positions.has(at) && (whole || at < this.answers[k + 1].tokens.length));
      if (at === this.first) marks[at] = "first";
      else if (differs) marks[at] = "later";
    }
    return marks;
  }

  /** Return the position in answer `to` of the token that belongs to token `at` of answer `from`; null for none. */
  partnerOf(from, at, to) {
    if (from === to) return at;
    const inReference = from === 0 ? at : this.partners[from][at];
    if (inReference === undefined || inReference < 0) return null;
    if (to === 0) return inReference;
    const found = this.partners[to].indexOf(inReference);
    return found < 0 ? null : found;
  }

  /** Return the probability of token `at` of answer `from` under the arm of answer `under`; null where it is not known yet. */
  probability(from, at, under) {
    const answer = this.answers[from];
    const token = answer.tokens[at];
    if (token.logprob === null) return null;
    if (from === under) return Math.exp(token.logprob);
    const other = this.answers[under];
    const scored = answer.scores.get(other.label)?.[at];
    if (scored !== undefined) return Math.exp(scored);
    // As long as both answers are the same, the other arm's own numbers say it.
    const parted = firstDifference(answer.tokens, other.tokens);
    const there = other.tokens[at];
    if (!there || there.logprob === null || (parted !== null && parted < at)) return null;
    if (there.id === token.id) return Math.exp(there.logprob);
    const named = there.alternatives.find((one) => one.text === token.text && token.text !== "");
    return named ? Math.exp(named.logprob) : null;
  }
}
