// Rates and paired differences, as `steer ab` gives them (steering_ab/statistics).

const Z = 1.959963984540054; // of 95%
const CORRECTION = 0.5; // items

/** Return Wilson's score interval of a rate. */
export function wilson(successes, total) {
  const rate = successes / total;
  const middle = (rate + (Z * Z) / (2 * total)) / (1 + (Z * Z) / total);
  const half = (Z / (1 + (Z * Z) / total)) * Math.sqrt((rate * (1 - rate)) / total + (Z * Z) / (4 * total * total));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/** Return the two-sided p-value of the exact McNemar test for numbers of items on which one arm alone is right. */
export function mcnemar(gained, lost) {
  const [fewer, total] = [Math.min(gained, lost), gained + lost];
  let log = -total * Math.log(2); // of the probability of 0
  let sum = Math.exp(log);
  for (let k = 1; k <= fewer; k += 1) {
    log += Math.log((total - k + 1) / k);
    sum += Math.exp(log);
  }
  return total ? Math.min(1, 2 * sum) : 1;
}

/** Return Tango's score interval of the difference of two rates on the same items, with a correction of half an item. */
export function differenceInterval(gained, lost, total) {
  const estimate = (gained - lost) / total;
  const inside = (difference) => score(gained, lost, total, difference) <= Z;
  return [boundary(estimate, -1, inside), boundary(estimate, 1, inside)];
}

/** Return p-values adjusted by Holm's method, in their order. */
export function holm(values) {
  const order = values.map((_, at) => at).sort((one, other) => values[one] - values[other]);
  const adjusted = [];
  let most = 0;
  order.forEach((at, rank) => {
    most = Math.max(most, Math.min(1, values[at] * (values.length - rank)));
    adjusted[at] = most;
  });
  return adjusted;
}

// The score grows from 0 at the estimate to the end: halve the range until nothing is left of it.
function boundary(within, end, inside) {
  if (inside(end)) return end;
  let [near, far] = [within, end];
  for (let step = 0; step < 60; step += 1) {
    const middle = (near + far) / 2;
    if (inside(middle)) near = middle;
    else far = middle;
  }
  return near;
}

function score(gained, lost, total, difference) {
  const distance = Math.abs(gained - lost - total * difference) - CORRECTION;
  if (distance <= 0) return 0;
  // The likeliest rate of lost items under the hypothesis: a root of a x² + b x + c, from Tango's equation.
  const [a, b, c] = [2 * total, -gained - lost + (2 * total - gained + lost) * difference, -lost * difference * (1 - difference)];
  const rate = (Math.sqrt(Math.max(0, b * b - 4 * a * c)) - b) / (2 * a);
  const variance = total * (2 * rate + difference * (1 - difference));
  return variance > 1e-12 ? distance / Math.sqrt(variance) : Infinity;
}
