// Graders: whether an answer is right, by the rules of `steer ab` (steering_ab/graders/matching.py).

const equal = (text, expected) => text === expected;
const identity = (text) => text;

export const GRADERS = {
  normalised: { title: "equal, but for case and spaces", prepare: normalised, matches: equal },
  exact: { title: "exactly equal", prepare: identity, matches: equal },
  contains: { title: "contains what is expected", prepare: normalised, matches: (text, expected) => text.includes(expected) },
  startswith: { title: "begins with what is expected", prepare: normalised, matches: (text, expected) => text.startsWith(expected) },
};

/** Return a text without differences of case, of compatible characters (NFKC) and of white space. */
export function normalised(text) {
  // Lower case alone would leave ß beside ss, and the sigma of a word's end beside the other one.
  return text.normalize("NFKC").toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ").trim().replace(/\s+/g, " ");
}

/** Return why an item cannot be graded by the grader `name`, or null if it can. */
export function whyNotGraded(item, name) {
  const own = item.grader ?? name;
  const grader = GRADERS[own];
  if (!grader) return `grader: is '${own}', which steer ab has; this page has ${Object.keys(GRADERS).join(", ")}`;
  if (!item.expected.length) return "has no expected, with which its answers are compared";
  if (grader.matches("x", "") && !item.expected.every((one) => grader.prepare(one))) return "expected: is empty, which every answer contains";
  return null;
}

/** Return whether the answer `text` to an item is right, by the item's own grader or the one called `name`. */
export function isRight(item, name, text) {
  const { prepare, matches } = GRADERS[item.grader ?? name];
  const prepared = prepare(text);
  return item.expected.some((expected) => matches(prepared, prepare(expected)));
}
