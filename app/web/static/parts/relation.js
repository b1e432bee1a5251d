// The relation graph as the paper draws it: nodes with γ on the edges (Fig. 1), all cosines, and the embedding (Fig. 4).

import { html } from "../lib/html.js";
import { get } from "../lib/api.js";
import { fixed } from "../lib/format.js";
import { useLoaded } from "../lib/load.js";
import { ProblemNote, Waiting } from "./note.js";
import { Scroll } from "./scroll.js";
import { useWidth } from "./width.js";

const RINGS = [1, 0.75, 0.5, 0.25, 0];
const MOST_NAMES = 10; // With more distortions than this, nodes of the star carry their rank in the list beside it.
const LIKE = 0.5; // Distortions with a cosine above this are joined by a thin line.

const clamp = (value) => Math.min(1, Math.max(0, value));
const keyOf = (one, other) => [one, other].sort().join("\n");

/**
 * The graph with what every drawing of it needs: auxiliaries by rank, the target, cosines by pair. A job that learns from
 * none of them draws all alike: its sentence says so.
 */
function prepared(graph) {
  const byId = new Map(graph.nodes.map((node) => [node.id, node]));
  const learns = graph.nodes.some((node) => node.selected);
  const ranked = graph.graph.ranking.map((id) => byId.get(id)).map((node) => ({ ...node, selected: !learns || node.selected }));
  const cosines = new Map(graph.links.map(({ source, target, cosine }) => [keyOf(source, target), cosine]));
  return { facts: graph.graph, ranked, target: byId.get(graph.graph.target), cosine: (one, other) => cosines.get(keyOf(one, other)) ?? 0 };
}

export function Relation({ jobId }) {
  const { value, problem, reload } = useLoaded(() => get(`/v1/jobs/${jobId}/graph`), `graph ${jobId}`);
  if (problem) return html`<${ProblemNote} problem=${problem}><button type="button" class="button little" onClick=${reload}>Try again</button><//>`;
  if (!value) return html`<${Waiting} what="the relation graph" />`;
  const relation = prepared(value);
  return html`
    <section class="panel" aria-labelledby="relation-title">
      <div class="row between">
        <h2 id="relation-title">What your device's distortion is like</h2>
        <span class=${`badge ${relation.facts.verdict === "related" ? "live still" : "warn"}`}>${relation.facts.verdict}</span>
      </div>
      <p>${relation.facts.sentence}</p>
      <div class="two wide-left">
        <div class="stack">
          <${Star} ...${relation} />
          <${Scatter} ...${relation} />
        </div>
        <div class="stack">
          <${Gammas} ranked=${relation.ranked} />
          <${Promises} ranked=${relation.ranked} />
        </div>
      </div>
      <${HeatMap} ...${relation} />
    </section>`;
}

/** Fig. 1: the target in the middle, the known distortions around it, nearer with a larger γ. */
function Star({ ranked, target, cosine }) {
  const [frame, width] = useWidth();
  const told = ranked.map(({ id, gamma }) => `${id} ${fixed(gamma)}`).join(", ");
  return html`
    <figure>
      <h3>Relation graph</h3>
      <div ref=${frame}>${width > 0 && html`<${StarDrawing} ...${{ ranked, target, cosine, width, told }} />`}</div>
      <figcaption>The nearer to the centre, the more alike: γ is the cosine of the two embeddings. Thin lines join known distortions that are alike among themselves.${ranked.length > MOST_NAMES && " The numbers are the ranks in the list of γ."}${ranked.some(({ selected }) => !selected) && " Pale ones are not learnt from."}</figcaption>
    </figure>`;
}

function StarDrawing({ ranked, target, cosine, width, told }) {
  const size = Math.min(width, 460);
  const [cx, cy] = [width / 2, size / 2];
  const far = size / 2 - 42;
  const radius = 26;
  const near = Math.max(radius + 46, far * 0.5);
  const distance = (gamma) => far - (far - near) * clamp(gamma);
  const angle = (place) => (2 * Math.PI * place) / ranked.length;
  const around = (at, away) => [cx + away * Math.sin(at), cy - away * Math.cos(at)];
  const places = ranked.map(({ gamma }, place) => around(angle(place), distance(gamma)));
  const between = -Math.PI / Math.max(1, ranked.length);
  const crowded = ranked.length > MOST_NAMES;
  return html`
    <svg class="relation" width=${width} height=${size} viewBox=${`0 0 ${width} ${size}`} role="img" aria-label=${`Relation graph. γ by distortion: ${told}`}>
      ${RINGS.map((gamma) => html`<circle key=${gamma} class="ring" cx=${cx} cy=${cy} r=${distance(gamma)} />`)}
      ${ranked.flatMap((one, i) => ranked.slice(i + 1).map((other, k) => [one, other, places[i], places[i + 1 + k]]))
        .filter(([one, other]) => cosine(one.id, other.id) > LIKE)
        .map(([one, other, [x1, y1], [x2, y2]]) => html`<line key=${one.id + other.id} class="kin" x1=${x1} y1=${y1} x2=${x2} y2=${y2} stroke-width="1.2"
          opacity=${0.15 + (0.5 * (cosine(one.id, other.id) - LIKE)) / (1 - LIKE)}><title>${one.id} – ${other.id}: cosine ${fixed(cosine(one.id, other.id))}</title></line>`)}
      ${ranked.map((node, place) => html`<line key=${node.id} class="edge" x1=${cx} y1=${cy} x2=${places[place][0]} y2=${places[place][1]}
        stroke-width=${1 + 6 * clamp(node.gamma)} opacity=${(0.25 + 0.65 * clamp(node.gamma)) * (node.selected ? 1 : 0.4)} />`)}
      ${RINGS.filter((gamma) => gamma === 1 || gamma === 0).map((gamma) => {
        const [x, y] = around(between, distance(gamma));
        return html`<text key=${gamma} class="tick halo" x=${x} y=${y + 4} text-anchor="middle">γ = ${gamma}</text>`;
      })}
      ${ranked.map((node, place) => {
        const at = angle(place);
        const [x, y] = places[place];
        const size = crowded ? 11 : 7 + 5 * clamp(node.gamma);
        const [px, py] = around(at, (radius + distance(node.gamma) - size) / 2 + 2);
        const below = Math.cos(at) <= 0.02;
        const anchor = Math.abs(Math.sin(at)) < 0.3 || width < 460 ? "middle" : Math.sin(at) > 0 ? "start" : "end";
        const lx = anchor === "middle" ? Math.min(width - 34, Math.max(34, x)) : x + (anchor === "start" ? 1 : -1) * (size + 6);
        const ly = anchor === "middle" ? y + (below ? size + 15 : -size - 20) : y - 2;
        const about = html`<title>${node.id}: γ ${fixed(node.gamma)} ± ${fixed(node.gamma_std)}, ${fixed(node.psnr_db, 1)} dB</title>`;
        const circle = html`<circle class="node" cx=${x} cy=${y} r=${size} opacity=${node.selected ? 1 : 0.5} />`;
        if (crowded) return html`<g key=${node.id}>${about}${circle}<text class="in-centre" x=${x} y=${y + 4} text-anchor="middle">${place + 1}</text></g>`;
        return html`<g key=${node.id}>
          ${about}${circle}
          <text class="name halo" x=${lx} y=${ly} text-anchor=${anchor}>${node.id}</text>
          <text class="tick halo" x=${lx} y=${ly + 13} text-anchor=${anchor}>${fixed(node.psnr_db, 1)} dB</text>
          <rect class="pill" x=${px - 18} y=${py - 10} width="36" height="20" rx="10" />
          <text class="gamma" x=${px} y=${py + 4.5} text-anchor="middle">${fixed(node.gamma)}</text></g>`;
      })}
      <circle class="centre" cx=${cx} cy=${cy} r=${radius} />
      <text class="in-centre" x=${cx} y=${cy + 4} text-anchor="middle">yours</text>
    </svg>`;
}

/** γ by rank, with its spread over the pairs. */
export function Gammas({ ranked }) {
  return html`
    <figure>
      <h3>γ, ranked</h3>
      <ol class=${`gammas ${ranked.length > MOST_NAMES ? "long" : ""}`}>
        ${ranked.map(({ id, gamma, gamma_std: spread }, place) => html`
          <li key=${id}>
            <span>${ranked.length > MOST_NAMES && `${place + 1} · `}${id}</span>
            <span class="track" aria-hidden="true"><b style=${{ width: `${100 * clamp(gamma)}%` }}></b>
              ${spread !== undefined && html`<i style=${{ left: `${100 * clamp(gamma - spread)}%`, width: `${100 * (clamp(gamma + spread) - clamp(gamma - spread))}%` }}></i>`}</span>
            <strong class="number">${fixed(gamma)}</strong>
            <span class="number soft small">${spread === undefined ? "" : `± ${fixed(spread)}`}</span>
          </li>`)}
      </ol>
      ${ranked.some(({ gamma_std: spread }) => spread !== undefined) && html`<figcaption>Whiskers: one standard deviation over your pairs.</figcaption>`}
    </figure>`;
}

/** What learning each distortion promises on the pairs, the best first; nothing where the prior has no experts. */
function Promises({ ranked }) {
  const promising = ranked.filter(({ gain_db: gain }) => typeof gain === "number").sort((one, other) => other.gain_db - one.gain_db);
  if (promising.length === 0) return null;
  const most = Math.max(0.1, promising[0].gain_db);
  return html`
    <figure>
      <h3>What learning it promises</h3>
      <ol class="gammas">
        ${promising.map(({ id, gain_db: gain, weight }) => html`
          <li key=${id}>
            <span>${id}</span>
            <span class="track" aria-hidden="true"><b style=${{ width: `${100 * clamp(gain / most)}%` }}></b></span>
            <strong class="number">${fixed(gain, 1)}</strong>
            <span class="number soft small">${Math.round(100 * weight)} %</span>
          </li>`)}
      </ol>
      <figcaption>Decibels that a network gains on your pairs which has learnt this distortion alone and had its last layer fitted to your other pairs; then its share in guided transfer.</figcaption>
    </figure>`;
}

/** All cosines as a table whose cells are tinted. */
function HeatMap({ ranked, target, cosine }) {
  const names = [target.id, ...ranked.map(({ id }) => id)];
  const shown = (name) => (name === target.id ? "yours" : name);
  return html`
    <figure>
      <h3>How alike all of them are</h3>
      <${Scroll} label="Table of cosines">
        <table class="heat">
          <thead><tr><td></td>${names.map((name) => html`<th key=${name} scope="col" class=${name === target.id ? "target" : ""}><span>${shown(name)}</span></th>`)}</tr></thead>
          <tbody>
            ${names.map((row) => html`<tr key=${row}><th scope="row" class=${row === target.id ? "target" : ""}>${shown(row)}</th>
              ${names.map((column) => {
                if (row === column) return html`<td key=${column} class="self">1</td>`;
                const value = cosine(row, column);
                const strength = clamp(Math.abs(value));
                return html`<td key=${column} class=${`${value < 0 ? "negative" : ""} ${strength > 0.72 ? "strong" : ""}`} style=${{ "--strength": strength }}>${fixed(value).replace("0.", ".")}</td>`;
              })}</tr>`)}
          </tbody>
        </table>
      <//>
      <figcaption>The adjacency of the graph: the cosine of every two embeddings.</figcaption>
    </figure>`;
}

/** Fig. 4: samples of the known distortions in the plane, and the target's own patches among them. */
function Scatter({ ranked, target, facts }) {
  const [frame, width] = useWidth();
  return html`
    <figure>
      <h3>Your patches among the known distortions</h3>
      <div ref=${frame}>${width > 0 && html`<${ScatterDrawing} ...${{ ranked, target, width }} />`}</div>
      <figcaption>Every small dot is a sample of a known distortion, every diamond a patch of your pairs, flattened to the plane (${String(facts.projection).toUpperCase()}).</figcaption>
    </figure>`;
}

const LETTER = 7; // The mean width of a letter, in pixels, and the height of a line.
const LINE = 15;

/** A place for every label beside its point, where it covers none that was placed before. */
function apart(labels, width, height) {
  const placed = [];
  for (const { at: [px, py], ...label } of labels) {
    const half = (LETTER * label.text.length) / 2 + 2;
    const beside = half + 10;
    const tries = [1, 2, 3, 4].flatMap((far) => [[0, -10 - LINE * (far - 1)], [0, 20 + LINE * (far - 1)], [beside, 4 + LINE * (far - 1)], [-beside, 4 - LINE * (far - 1)]]);
    const spots = tries.map(([dx, dy]) => ({ ...label, half, x: Math.min(width - half, Math.max(half, px + dx)), y: Math.min(height - 4, Math.max(LINE, py + dy)) }));
    const free = spots.find((spot) => placed.every((other) => Math.abs(spot.x - other.x) > spot.half + other.half || Math.abs(spot.y - other.y) > LINE));
    placed.push(free ?? spots[0]);
  }
  return placed;
}

function ScatterDrawing({ ranked, target, width }) {
  const height = Math.min(width, 380);
  const edge = 30;
  const points = [...ranked, target].flatMap(({ x, y, samples = [] }) => [[x, y], ...samples]);
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const span = (values) => [Math.min(...values), Math.max(...values)];
  const [[x0, x1], [y0, y1]] = [span(xs), span(ys)];
  const scale = Math.min((width - 2 * edge) / (x1 - x0 || 1), (height - 2 * edge) / (y1 - y0 || 1));
  const at = ([x, y]) => [width / 2 + scale * (x - (x0 + x1) / 2), height / 2 - scale * (y - (y0 + y1) / 2)];
  const wanted = [{ ...target, text: "yours", hue: "own" }, ...ranked.map((node, place) => ({ ...node, text: node.id, hue: `hue-${place % 10}` }))];
  const labels = apart(wanted.map(({ id, text, hue, x, y }) => ({ id, text, hue, at: at([x, y]) })), width, height);
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
      ${ranked.map((node, place) => {
        const [x, y] = at([node.x, node.y]);
        return html`<circle key=${node.id} class=${`centroid hue-${place % 10}`} cx=${x} cy=${y} r="5.5" />`;
      })}
      ${labels.map(({ id, text, x, y, hue }) => html`<text key=${id} class=${`label halo ${hue}`} x=${x} y=${y} text-anchor="middle">${text}</text>`)}
    </svg>`;
}
