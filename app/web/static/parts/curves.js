// Curves over training steps, one for each candidate, drawn as SVG.

import { html } from "../lib/html.js";
import { fixed } from "../lib/format.js";
import { useWidth } from "./width.js";

const HEIGHT = 210;
const EDGE = { top: 12, right: 14, bottom: 26, left: 46 };
const MOST_POINTS = 400;
const LEAST_STEPS = 10; // A curve of two points shall not look like a whole training.

export const CANDIDATES = {
  scratch: "from nothing",
  prior: "from the prior",
  "uniform-transfer": "uniform transfer",
  "guided-transfer": "guided transfer",
  "uniform-maml": "uniform meta-learning",
  "guided-maml": "guided meta-learning",
  average: "average of both",
};
const HUES = ["scratch", "prior", "guided-transfer", "uniform-transfer", "uniform-maml", "guided-maml"];
export const hueOf = (candidate) => `hue-${HUES.includes(candidate) ? HUES.indexOf(candidate) : HUES.length}`;

/** Round numbers that cover `low` to `high`, about four of them. */
export function ticks(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  const from = Math.ceil(low / step - 1e-9);
  const to = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, place) => (from + place) * step);
}

/** At most so many points, each the mean of its neighbours. */
function thinned(curve) {
  const size = Math.ceil(curve.length / MOST_POINTS);
  if (size <= 1) return curve;
  const means = [];
  for (let start = 0; start < curve.length; start += size) {
    const group = curve.slice(start, start + size);
    means.push({ step: group.at(-1).step, value: group.reduce((sum, { value }) => sum + value, 0) / group.length });
  }
  return means;
}

/** A running mean, since the loss of one batch says little. */
function smoothed(curve) {
  let mean = null;
  return curve.map(({ step, value }) => ({ step, value: (mean = mean === null ? value : 0.85 * mean + 0.15 * value) }));
}

const range = (values) => [Math.min(...values), Math.max(...values)];

/** The points without the highest and lowest tenth, which would flatten all others. */
const usual = (curve) => curve.toSorted((one, other) => one.value - other.value).slice(Math.floor(curve.length / 10), Math.ceil((9 * curve.length) / 10));

/**
 * @param {{title: string, unit: string, curves: Record<string, import("../lib/follow.js").Curve>, digits: number,
 *   smooth?: boolean, reference?: {value: number, name: string} | null, waiting: string}} props
 */
export function Curves({ title, unit, curves, digits, smooth = false, reference = null, waiting }) {
  const [frame, width] = useWidth();
  const names = Object.keys(curves).filter((name) => curves[name].length > 0);
  return html`
    <figure>
      <h3>${title} <span class="soft small">${unit}</span></h3>
      <div ref=${frame} style=${{ minHeight: `${HEIGHT}px` }}>
        ${names.length === 0 ? html`<p class="small soft">${waiting}</p>` : width > 0 && html`<${Plot} ...${{ title, names, curves, digits, smooth, reference, width }} />`}
      </div>
      <ul class="legend">
        ${names.map((name) => html`<li key=${name} class=${hueOf(name)}><i></i>${CANDIDATES[name] ?? name} <span class="number">${fixed(curves[name].at(-1).value, digits)}</span></li>`)}
        ${reference && names.length > 0 && html`<li><i class="dashed"></i>${reference.name} <span class="number">${fixed(reference.value, digits)}</span></li>`}
      </ul>
    </figure>`;
}

function Plot({ title, names, curves, digits, smooth, reference, width }) {
  const raw = names.map((name) => thinned(curves[name]));
  const shown = smooth ? raw.map(smoothed) : raw;
  const [least, most] = range([...shown.flat(), ...raw.flatMap(usual)].map(({ value }) => value).concat(reference ? [reference.value] : []));
  const room = (most - least || Math.abs(most) || 1) * 0.08;
  const [low, high] = [least - room, most + room];
  const last = Math.max(...shown.map((curve) => curve.at(-1).step), LEAST_STEPS);
  const levels = ticks(low, high);
  const finer = levels.length > 1 ? Math.ceil(-Math.log10(levels[1] - levels[0]) - 1e-9) : 0; // Two levels must not read alike.
  const x = (step) => EDGE.left + ((width - EDGE.left - EDGE.right) * step) / last;
  const y = (value) => HEIGHT - EDGE.bottom - ((HEIGHT - EDGE.top - EDGE.bottom) * (value - low)) / (high - low);
  const inside = (value) => Math.min(high, Math.max(low, value));
  const path = (curve) => curve.map(({ step, value }, place) => `${place ? "L" : "M"}${x(step).toFixed(1)} ${y(inside(value)).toFixed(1)}`).join("");
  const told = names.map((name) => `${CANDIDATES[name] ?? name}: ${fixed(curves[name][0].value, digits)} to ${fixed(curves[name].at(-1).value, digits)}`).join("; ");
  return html`
    <svg class="curve" width=${width} height=${HEIGHT} viewBox=${`0 0 ${width} ${HEIGHT}`} role="img" aria-label=${`${title} by training step. ${told}`}>
      ${levels.map((value) => html`<g key=${value}>
        <line class="axis" x1=${EDGE.left} x2=${width - EDGE.right} y1=${y(value)} y2=${y(value)} />
        <text class="tick" x=${EDGE.left - 8} y=${y(value) + 4} text-anchor="end">${fixed(value, Math.max(digits, finer))}</text></g>`)}
      ${ticks(0, last).filter(Number.isInteger).map((step) => html`<text key=${step} class="tick" x=${x(step)} y=${HEIGHT - 8} text-anchor=${step === 0 ? "start" : "middle"}>${step === 0 ? "step 0" : step}</text>`)}
      ${reference && html`<line class="reference" x1=${EDGE.left} x2=${width - EDGE.right} y1=${y(reference.value)} y2=${y(reference.value)} />`}
      ${names.map((name, place) => html`<g key=${name} class=${hueOf(name)}>
        ${smooth && html`<path class="raw" d=${path(raw[place])} />`}
        <path class="line" d=${path(shown[place])} />
        <circle class="dot" r="3" cx=${x(shown[place].at(-1).step)} cy=${y(shown[place].at(-1).value)} /></g>`)}
    </svg>`;
}
