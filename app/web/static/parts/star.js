// Fig. 1 of the paper: the target in the middle, the known distortions around it, nearer with a larger γ.

import { html } from "../lib/html.js";
import { fixed } from "../lib/format.js";
import { around, firstFree, lineBox, widthOf } from "../lib/labels.js";
import { useWidth } from "./width.js";

const RINGS = [1, 0.75, 0.5, 0.25, 0];
const MOST_NAMES = 10; // With more distortions than this, or too little room, nodes carry their rank in the list of γ.
const LIKE = 0.5; // Distortions with a cosine above this are joined by a thin line.
const CENTRE = 26; // Radii and sizes are in pixels.
const RANKED = 11;
const PILL = { width: 36, height: 20 };
const NAME = { size: 12, weight: 600 };
const STRENGTH = { size: 11 };
const TWO_LINES = 30;
const TURNS = 72;

const clamp = (value) => Math.min(1, Math.max(0, value));
const strength = ({ psnr_db: decibels }) => `${fixed(decibels, 1)} dB`;

/** The measures of a star in a drawing so wide: `at` is the point in a direction from the centre, clockwise from the top. */
function frameOf(width, count, named) {
  const size = Math.min(width, 460);
  const far = size / 2 - (named ? 42 : 18);
  const near = Math.min(far, Math.max(CENTRE + 46, far * 0.5, (count * (2 * RANKED + 2)) / (2 * Math.PI)));
  return {
    width,
    height: size,
    distance: (gamma) => far - (far - near) * clamp(gamma),
    at: (angle, away) => [width / 2 + away * Math.sin(angle), size / 2 - away * Math.cos(angle)],
  };
}

/**
 * Where everything of the star is. Each node has its γ on its edge and its name beside it, or else its rank in it; the first
 * and the last ring have their γ where there is room for it. Null where the names have none.
 */
function layOut(ranked, drawingWidth, named) {
  const frame = frameOf(drawingWidth, ranked.length, named);
  const { width, height, at, distance } = frame;
  const placed = ranked.map((node, place) => {
    const angle = (2 * Math.PI * place) / ranked.length;
    const [x, y] = at(angle, distance(node.gamma));
    return { node, angle, x, y, radius: named ? 7 + 5 * clamp(node.gamma) : RANKED };
  });
  const taken = [around(at(0, 0), 2 * CENTRE), ...placed.map(({ x, y, radius }) => around([x, y], 2 * radius))];
  if (named) {
    for (const each of placed) {
      const [from, to] = [CENTRE + PILL.height / 2, distance(each.node.gamma) - each.radius];
      const along = [0.5, 0.65, 0.8, 0.35].map((share) => at(each.angle, from + share * (to - from)));
      each.pill = firstFree(along.map((centre) => ({ centre, box: around(centre, PILL.width, PILL.height) })), taken, width, height);
    }
    for (const each of placed) {
      const wide = Math.max(widthOf(each.node.id, NAME), widthOf(strength(each.node), STRENGTH)) + 4;
      const beside = (angle, gap) => [
        each.x + Math.sin(angle) * (each.radius + gap + wide / 2),
        each.y - Math.cos(angle) * (each.radius + gap + TWO_LINES / 2),
      ];
      const spots = [2, 8, 16].flatMap((gap) => [0, 0.5, -0.5, 1, -1, 1.5, -1.5].map((turn) => beside(each.angle + turn, gap)));
      each.name = firstFree(spots.map((centre) => ({ centre, box: around(centre, wide, TWO_LINES) })), taken, width, height);
    }
    if (placed.some(({ pill, name }) => !pill || !name)) return null;
  }
  const rings = [0, 1].map((gamma) => {
    const text = `γ = ${gamma}`;
    const first = -Math.PI / Math.max(1, ranked.length); // Between two nodes.
    const spots = Array.from({ length: TURNS }, (_, turn) => at(first - (2 * Math.PI * turn) / TURNS, distance(gamma)));
    return { text, spot: firstFree(spots.map((centre) => ({ centre, box: lineBox(centre, text, STRENGTH) })), taken, width, height) };
  });
  return { frame, placed, rings: rings.filter(({ spot }) => spot), named };
}

export function Star({ ranked, cosine }) {
  const [element, width] = useWidth();
  const drawn = width > 0 && ((ranked.length <= MOST_NAMES && layOut(ranked, width, true)) || layOut(ranked, width, false));
  return html`
    <figure>
      <h3>Relation graph</h3>
      <div ref=${element}>${drawn && html`<${Drawing} ...${{ ranked, cosine, ...drawn }} />`}</div>
      <figcaption>The nearer to the centre, the more alike: γ is the cosine of the two embeddings, 1 on the inmost ring and 0 on the outmost. Thin lines join known distortions that are alike among themselves.${drawn && !drawn.named && " The numbers are the ranks in the list of γ."}${ranked.some(({ selected }) => !selected) && " Pale ones are not learnt from."}</figcaption>
    </figure>`;
}

function Drawing({ ranked, cosine, frame: { width, height, at, distance }, placed, rings, named }) {
  const [cx, cy] = at(0, 0);
  const alike = placed.flatMap((one, place) => placed.slice(place + 1).map((other) => [one, other, cosine(one.node.id, other.node.id)]));
  return html`
    <svg class="relation" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${`Relation graph. γ by distortion: ${ranked.map(({ id, gamma }) => `${id} ${fixed(gamma)}`).join(", ")}`}>
      ${RINGS.map((gamma) => html`<circle key=${gamma} class="ring" cx=${cx} cy=${cy} r=${distance(gamma)} />`)}
      ${alike.filter(([, , value]) => value > LIKE).map(([one, other, value]) => html`<line key=${one.node.id + other.node.id} class="kin" x1=${one.x} y1=${one.y} x2=${other.x} y2=${other.y} stroke-width="1.2"
        opacity=${0.15 + (0.5 * (value - LIKE)) / (1 - LIKE)}><title>${one.node.id} – ${other.node.id}: cosine ${fixed(value)}</title></line>`)}
      ${placed.map(({ node, x, y }) => html`<line key=${node.id} class="edge" x1=${cx} y1=${cy} x2=${x} y2=${y}
        stroke-width=${1 + 6 * clamp(node.gamma)} opacity=${(0.25 + 0.65 * clamp(node.gamma)) * (node.selected ? 1 : 0.4)} />`)}
      ${rings.map(({ text, spot: { centre: [x, y] } }) => html`<text key=${text} class="tick halo" x=${x} y=${y + 4} text-anchor="middle">${text}</text>`)}
      ${placed.map(({ node, x, y, radius, pill, name }, place) => html`<g key=${node.id}>
        <title>${node.id}: γ ${fixed(node.gamma)} ± ${fixed(node.gamma_std)}, ${strength(node)}</title>
        <circle class="node" cx=${x} cy=${y} r=${radius} opacity=${node.selected ? 1 : 0.5} />
        ${named
          ? html`<text class="name halo" x=${name.centre[0]} y=${name.centre[1] - 4} text-anchor="middle">${node.id}</text>
              <text class="tick halo" x=${name.centre[0]} y=${name.centre[1] + 11} text-anchor="middle">${strength(node)}</text>
              <rect class="pill" x=${pill.box.left} y=${pill.box.top} width=${PILL.width} height=${PILL.height} rx="10" />
              <text class="gamma" x=${pill.centre[0]} y=${pill.centre[1] + 4.5} text-anchor="middle">${fixed(node.gamma)}</text>`
          : html`<text class="in-centre" x=${x} y=${y + 4} text-anchor="middle">${place + 1}</text>`}</g>`)}
      <circle class="centre" cx=${cx} cy=${cy} r=${CENTRE} />
      <text class="in-centre" x=${cx} y=${cy + 4} text-anchor="middle">yours</text>
    </svg>`;
}
