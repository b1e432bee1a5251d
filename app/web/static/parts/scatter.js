// Fig. 4 of the paper: samples of the known distortions in the plane, and the target's own patches among them.

import { html } from "../lib/html.js";
import { firstFree, lineBox } from "../lib/labels.js";
import { useWidth } from "./width.js";

const NAME = { size: 12, weight: 700 };
const EDGE = 30; // Pixels.
const NEAR = 28; // A label farther than this from its point has a line to it.
const MOST_AWAY = 140;

export function Scatter({ ranked, target, facts }) {
  const [frame, width] = useWidth();
  return html`
    <figure>
      <h3>Your patches among the known distortions</h3>
      <div ref=${frame}>${width > 0 && html`<${Drawing} ...${{ ranked, target, width }} />`}</div>
      <figcaption>Every small dot is a sample of a known distortion, every diamond a patch of your pairs, flattened to the plane (${String(facts.projection).toUpperCase()}).</figcaption>
    </figure>`;
}

/** Around a point, the near places first: above, below and beside it, then farther away. */
function spotsOf(text, [x, y]) {
  const wide = lineBox([0, 0], text, NAME).right;
  const spots = [];
  for (let away = 0; away < MOST_AWAY; away += 6) {
    for (const [dx, dy] of [[0, -1], [0, 1], [1, 0], [-1, 0], [0.7, -0.7], [-0.7, 0.7], [0.7, 0.7], [-0.7, -0.7]]) {
      const centre = [x + dx * (wide + 8 + away), y + dy * (15 + away)];
      spots.push({ centre, box: lineBox(centre, text, NAME), away });
    }
  }
  return spots;
}

function Drawing({ ranked, target, width }) {
  const height = Math.min(width, 380);
  const points = [...ranked, target].flatMap(({ x, y, samples = [] }) => [[x, y], ...samples]);
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const span = (values) => [Math.min(...values), Math.max(...values)];
  const [[x0, x1], [y0, y1]] = [span(xs), span(ys)];
  const scale = Math.min((width - 2 * EDGE) / (x1 - x0 || 1), (height - 2 * EDGE) / (y1 - y0 || 1));
  const at = ([x, y]) => [width / 2 + scale * (x - (x0 + x1) / 2), height / 2 - scale * (y - (y0 + y1) / 2)];
  const wanted = [{ ...target, text: "yours", hue: "own" }, ...ranked.map((node, place) => ({ ...node, text: node.id, hue: `hue-${place % 10}` }))];
  const taken = [];
  const labels = wanted
    .map(({ id, text, hue, x, y }) => ({ id, text, hue, point: at([x, y]), spot: firstFree(spotsOf(text, at([x, y])), taken, width, height) }))
    .filter(({ spot }) => spot);
  return html`
    <svg class="scatter" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img"
      aria-label=${`Embedding of ${ranked.map(({ id }) => id).join(", ")} and of the patches of your pairs. Nearest in γ is ${ranked[0]?.id}.`}>
      ${ranked.map(({ id, samples = [] }, place) => html`<g key=${id} class=${`hue-${place % 10}`}>
        ${samples.map((sample, index) => {
          const [x, y] = at(sample);
          return html`<circle key=${index} class="sample" cx=${x} cy=${y} r="3" />`;
        })}</g>`)}
      ${(target.samples ?? []).map((sample, index) => {
        const [x, y] = at(sample);
        return html`<path key=${index} class="target-sample" d=${`M${x} ${y - 4.5}l4.5 4.5-4.5 4.5-4.5-4.5z`} />`;
      })}
      ${labels.filter(({ spot }) => spot.away > NEAR).map(({ id, hue, point: [x, y], spot: { centre } }) => html`<line key=${id} class=${`lead ${hue}`} x1=${x} y1=${y} x2=${centre[0]} y2=${centre[1]} />`)}
      ${ranked.map((node, place) => {
        const [x, y] = at([node.x, node.y]);
        return html`<circle key=${node.id} class=${`centroid hue-${place % 10}`} cx=${x} cy=${y} r="5.5"><title>${node.id}</title></circle>`;
      })}
      ${labels.map(({ id, text, hue, spot: { centre: [x, y] } }) => html`<text key=${id} class=${`label halo ${hue}`} x=${x} y=${y + 4} text-anchor="middle">${text}</text>`)}
    </svg>`;
}
