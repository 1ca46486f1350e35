// Numbers and tokens as people read them.

/** Return a probability in percent, with more digits where it is small. */
export function percent(probability) {
  const value = 100 * probability;
  if (value === 0) return "0%";
  if (value < 0.01) return "<0.01%";
  return value < 1 ? `${value.toPrecision(1)}%` : `${value.toFixed(1)}%`;
}

/** Return a duration in milliseconds as text. */
export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(milliseconds < 10000 ? 2 : 1)} s`;
}

/** Return a token's text with its spaces and line breaks made visible. */
export function visible(text) {
  if (text === "") return "∅";
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
}
