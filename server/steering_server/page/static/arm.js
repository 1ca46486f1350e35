// Arms as the API names them: "baseline", "a", "a+b", "a@0.5".

export const BASELINE = "baseline";
export const LEAST_STRENGTH = -2;
export const MOST_STRENGTH = 3;

/** Return the label of profiles at a strength, as the server writes it. */
export function labelOf({ profiles, strength }) {
  if (profiles === BASELINE) return BASELINE;
  return strength === 1 ? profiles : `${profiles}@${strength}`;
}

/** Return the profiles, joined by a plus, and the strength of a label. */
export function armOf(label) {
  const [profiles, strength] = label.split("@");
  const number = strength === undefined ? 1 : Number(strength);
  return { profiles: profiles || BASELINE, strength: Number.isFinite(number) ? number : 1 };
}

/** Return what can be chosen for an arm: the baseline, each profile, and each pair of a few profiles. */
export function choicesOf(names) {
  const pairs = names.length <= 5 ? names.flatMap((one, at) => names.slice(at + 1).map((other) => `${one}+${other}`)) : [];
  return [BASELINE, ...names, ...pairs];
}

/** Return a strength in a few digits. */
export function strengthText(strength) {
  return String(Math.round(strength * 100) / 100).replace("-", "−");
}
