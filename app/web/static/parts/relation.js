// The relation graph as the paper draws it: nodes with γ on the edges (Fig. 1), all cosines, and the embedding (Fig. 4).

import { html } from "../lib/html.js";
import { fixed } from "../lib/format.js";
import { ProblemNote, Waiting } from "./note.js";
import { Scatter } from "./scatter.js";
import { Scroll } from "./scroll.js";
import { Star } from "./star.js";

const LONG_NAME = 9; // Letters that a row of the lists has room for beside a wide bar.

const clamp = (value) => Math.min(1, Math.max(0, value));
const keyOf = (one, other) => [one, other].sort().join("\n");

/** Whether the job learns known distortions before it is fine-tuned: the graph has the share of each. */
export const transfers = (graph) => graph.nodes.some(({ weight }) => weight > 0);

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

/** @param {{graph: {value: any, problem: any, reload: () => void}}} props the job's graph, as it is loaded */
export function Relation({ graph: { value, problem, reload } }) {
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
          <${Promises} ranked=${relation.ranked} shared=${transfers(value)} />
        </div>
      </div>
      <${HeatMap} ...${relation} />
    </section>`;
}

/** γ by rank, with its spread over the pairs. */
export function Gammas({ ranked }) {
  return html`
    <figure>
      <h3>γ, ranked</h3>
      <ol class=${`gammas ${ranked.some(({ id }) => id.length > LONG_NAME) ? "long" : ""}`}>
        ${ranked.map(({ id, gamma, gamma_std: spread }, place) => html`
          <li key=${id}>
            <span>${place + 1} · ${id}</span>
            <span class="track" aria-hidden="true"><b style=${{ width: `${100 * clamp(gamma)}%` }}></b>
              ${spread !== undefined && html`<i style=${{ left: `${100 * clamp(gamma - spread)}%`, width: `${100 * (clamp(gamma + spread) - clamp(gamma - spread))}%` }}></i>`}</span>
            <strong class="number">${fixed(gamma)}</strong>
            <span class="number soft small">${spread === undefined ? "" : `± ${fixed(spread)}`}</span>
          </li>`)}
      </ol>
      ${ranked.some(({ gamma_std: spread }) => spread !== undefined) && html`<figcaption>Whiskers: one standard deviation over your pairs.</figcaption>`}
    </figure>`;
}

/**
 * What learning each distortion promises on the pairs, the best first, and its share where one is learnt; nothing where the
 * prior has no experts.
 */
function Promises({ ranked, shared }) {
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
            <span class="number soft small">${shared && `${Math.round(100 * weight)} %`}</span>
          </li>`)}
      </ol>
      <figcaption>Decibels that a network gains on your pairs which has learnt this distortion alone and had its last layer fitted to your other pairs${shared && "; then its share in guided transfer"}.</figcaption>
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
