// Charts: an interval on a line, and lines with bands over time.

import { element, svg } from "./dom.js";

const WIDTH = 480;
const HEIGHT = 210;
const LEFT = 46;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 26;

/** Return a bar from `low` to `high` with a dot at `value`, on a line from `least` to `most`; `mark` is a point on the line. */
export function intervalBar({ value, low, high, least = 0, most = 1, mark = null, tone = "arm-0" }) {
  const place = (number) => `${(100 * (Math.min(most, Math.max(least, number)) - least)) / (most - least)}%`;
  const bar = element("span", { class: `interval ${tone}`, "aria-hidden": "true" });
  if (mark !== null) {
    const line = element("span", { class: "mark" });
    line.style.left = place(mark);
    bar.append(line);
  }
  const range = element("span", { class: "range" });
  range.style.left = place(low);
  range.style.right = `calc(100% - ${place(high)})`;
  bar.append(range);
  if (value !== null) {
    const dot = element("span", { class: "dot" });
    dot.style.left = place(value);
    bar.append(dot);
  }
  return bar;
}

/**
 * Return lines over time with bands of uncertainty. Each of `lines` has a tone, and points {at, value, low, high}, of which value and
 * band are null where they are not known. `format` writes a value, `marks` are levels with a class and a title.
 */
export function timeChart({ lines, format, label, marks = [], least = null, most = null }) {
  const points = lines.flatMap((line) => line.points);
  const known = points.filter((point) => point.value !== null || point.low !== null);
  if (!known.length) return null;
  const values = [...known.flatMap((point) => [point.value, point.low, point.high]), ...marks.map((mark) => mark.value)].filter((one) => one !== null && Number.isFinite(one));
  const [bottom, top, step] = scaleOf(least ?? Math.min(...values), most ?? Math.max(...values));
  const [first, last] = [Math.min(...points.map((point) => point.at)), Math.max(...points.map((point) => point.at))];
  const x = (at) => (last === first ? (LEFT + WIDTH - RIGHT) / 2 : LEFT + ((WIDTH - LEFT - RIGHT) * (at - first)) / (last - first));
  const y = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (top - Math.min(top, Math.max(bottom, value)))) / (top - bottom);
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (let level = bottom; level <= top + step / 1e6; level += step) {
    chart.append(svg("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(level), y2: y(level) }),
      svg("text", { x: LEFT - 8, y: y(level) + 4, "text-anchor": "end" }, format(level)));
  }
  for (const mark of marks) chart.append(svg("line", { class: mark.tone, x1: LEFT, x2: WIDTH - RIGHT, y1: y(mark.value), y2: y(mark.value) }));
  for (const [at, anchor] of last === first ? [[first, "middle"]] : [[first, "start"], [(first + last) / 2, "middle"], [last, "end"]]) {
    chart.append(svg("text", { x: x(at), y: HEIGHT - 6, "text-anchor": anchor }, timeText(at, last - first)));
  }
  for (const { tone, points: each } of lines) {
    const banded = each.filter((point) => point.low !== null && Number.isFinite(point.low) && Number.isFinite(point.high));
    const drawn = each.filter((point) => point.value !== null);
    const group = svg("g", { class: tone });
    const edge = (name) => (point) => `${x(point.at).toFixed(1)},${y(point[name]).toFixed(1)}`;
    if (banded.length > 1) group.append(svg("polygon", { class: "band", points: [...banded.map(edge("high")), ...banded.map(edge("low")).reverse()].join(" ") }));
    if (drawn.length > 1) group.append(svg("polyline", { class: "line", points: drawn.map(edge("value")).join(" ") }));
    const end = drawn.at(-1);
    if (end) group.append(svg("circle", { class: "end", cx: x(end.at), cy: y(end.value), r: 4.5 }));
    chart.append(group);
  }
  return chart;
}

// Round levels around the values, about five of them.
function scaleOf(low, high) {
  if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  const raw = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw);
  return [step * Math.floor(low / step + 1e-9), step * Math.ceil(high / step - 1e-9), step];
}

const DAY = 86_400;

function timeText(seconds, span) {
  const date = new Date(1000 * seconds);
  if (span >= 3 * DAY) return date.toLocaleDateString("en", { month: "short", day: "numeric" });
  const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(span < 600 ? { second: "2-digit" } : {}) };
  return date.toLocaleString("en", span >= DAY / 2 ? { month: "short", day: "numeric", ...clock } : clock);
}
