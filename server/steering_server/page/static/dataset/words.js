// Which words of two texts differ.

import { align } from "../compare/alignment.js";

const WORD = /[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu;
const MOST_WORDS = 1500; // longer texts are compared up to so many

/** Return both texts in pieces {text, differs}, of which those that the other text does not have differ. */
export function markedWords(first, second) {
  const [one, other] = [first, second].map((text) => (text.match(WORD) ?? []).map((id) => ({ id })));
  const [near, rest] = [[one, other].map((words) => words.slice(0, MOST_WORDS)), [one, other].map((words) => words.slice(MOST_WORDS))];
  const partner = align(near[0], near[1]);
  const matched = new Set(partner);
  return [pieces(near[0], (at) => !matched.has(at), rest[0]), pieces(near[1], (at) => partner[at] < 0, rest[1])];
}

function pieces(words, differsAt, rest) {
  const made = [];
  const add = (text, differs) => {
    const last = made.at(-1);
    if (last?.differs === differs) last.text += text;
    else made.push({ text, differs });
  };
  words.forEach(({ id }, at) => add(id, differsAt(at)));
  for (const { id } of rest) add(id, false);
  return made;
}
