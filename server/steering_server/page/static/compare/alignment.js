// Which tokens of two answers belong together.

const MOST_CELLS = 16_000_000;

/** Return the first position at which two lists of tokens differ; null if neither does within the shorter one. */
export function firstDifference(one, other) {
  const shorter = Math.min(one.length, other.length);
  for (let at = 0; at < shorter; at += 1) if (one[at].id !== other[at].id) return at;
  return null;
}

/**
 * Align two lists of tokens by a longest common subsequence of their ids.
 * Returns, for each token of `other`, the position of its partner in `one`, or -1. Answers that are too long to
 * align are aligned up to their first difference and from their last one on.
 */
export function align(one, other) {
  const partner = new Int32Array(other.length).fill(-1);
  let start = 0;
  const shorter = Math.min(one.length, other.length);
  while (start < shorter && one[start].id === other[start].id) partner[start] = start++;
  let ends = 0;
  while (ends < shorter - start && one[one.length - 1 - ends].id === other[other.length - 1 - ends].id) {
    ends += 1;
    partner[other.length - ends] = one.length - ends;
  }
  const rows = one.length - start - ends;
  const columns = other.length - start - ends;
  if (rows && columns && rows * columns <= MOST_CELLS) subsequence(one, other, start, rows, columns, partner);
  return partner;
}

// Lengths of common subsequences of the rest from each pair of positions on, and then a walk along the longest.
function subsequence(one, other, start, rows, columns, partner) {
  const width = columns + 1;
  const length = new Uint16Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i -= 1) {
    const id = one[start + i].id;
    for (let j = columns - 1; j >= 0; j -= 1) {
      const here = i * width + j;
      length[here] = id === other[start + j].id ? length[here + width + 1] + 1 : Math.max(length[here + width], length[here + 1]);
    }
  }
  for (let i = 0, j = 0; i < rows && j < columns;) {
    const here = i * width + j;
    if (one[start + i].id === other[start + j].id) {
      partner[start + j] = start + i;
      i += 1;
      j += 1;
    } else if (length[here + width] >= length[here + 1]) i += 1;
    else j += 1;
  }
}

/**
 * Return the rows of a table in which tokens that belong together share a row: a list of positions, one per answer, or null.
 * `partners[k]` is align() of the first answer and of answer k. Tokens without a partner stand beside each other.
 */
export function alignedRows(answers, partners) {
  const [reference] = answers;
  const others = answers.slice(1).map((tokens, k) => ({ tokens, partner: partners[k + 1], next: 0 }));
  const isAlone = ({ tokens, partner, next }) => next < tokens.length && partner[next] < 0;
  const rows = [];
  // Rows without the reference, for as long as one of the `waiting` answers has a token without a partner.
  const insert = (waiting) => {
    while (waiting.some(isAlone)) rows.push([null, ...others.map((other) => (waiting.includes(other) && isAlone(other) ? other.next++ : null))]);
  };
  const matched = others.map(({ partner }) => new Set(partner));
  for (let at = 0; at < reference.length; at += 1) {
    insert(others.filter((_, k) => matched[k].has(at)));
    rows.push([at, ...others.map((other, k) => (matched[k].has(at) || isAlone(other) ? other.next++ : null))]);
  }
  insert(others);
  return rows;
}
