// One model: its card in words, its held-out pairs, which version is used, and its weights.

import { html, useState } from "../lib/html.js";
import { get, sendJson } from "../lib/api.js";
import { useLoaded } from "../lib/load.js";
import { fixed, plural, when, words } from "../lib/format.js";
import { go } from "../lib/router.js";
import { useService } from "../lib/service.js";
import { CANDIDATES } from "../parts/curves.js";
import { HeldOut } from "../parts/held_out.js";
import { Download } from "../parts/icons.js";
import { Candidates, Gain, Metrics } from "../parts/metrics.js";
import { ProblemNote, Waiting } from "../parts/note.js";
import { Gammas } from "../parts/relation.js";
import { Title } from "../parts/title.js";

export function ModelPage({ name, version }) {
  const service = useService();
  const load = async () => {
    const model = await get(`/v1/models/${encodeURIComponent(name)}`);
    const shown = version ?? model.aliases.production ?? model.versions[0];
    return { model, card: await get(`/v1/models/${model.name}/versions/${shown}`) };
  };
  const { value, problem, reload } = useLoaded(load, `${name} ${version}`);
  if (problem) return html`<${Title}>${name}<//><${ProblemNote} problem=${problem}><a class="button little" href="#/models">All models</a><//>`;
  if (!value) return html`<${Title}>${name}<//><${Waiting} what="the model" />`;
  const { model, card: document } = value;
  const { card } = document;
  const reference = `${document.name}@${document.version}`;
  const gammas = Object.entries(card.gamma ?? {}).map(([id, gamma]) => ({ id, gamma })).sort((one, other) => other.gamma - one.gamma);
  return html`
    <header class="row between">
      <div>
        <${Title}>${document.name}<//>
        <p class="row tight soft small">version ${document.version}, ${when(document.created_at)}
          ${document.aliases.map((alias) => html`<span key=${alias} class="badge good">${alias}</span>`)}</p>
      </div>
      <div class="row">
        ${model.versions.length > 1 && html`
          <label class="row tight"><span class="small soft">Version</span>
            <select value=${document.version} style=${{ width: "auto" }} onChange=${(event) => go(`/models/${name}/${event.currentTarget.value}`)}>
              ${model.versions.map((each) => html`<option key=${each} value=${each}>${each}${model.aliases.production === each ? " (in use)" : ""}</option>`)}
            </select></label>`}
        <a class="button" href=${`/v1/models/${document.name}/versions/${document.version}/weights`} download><${Download} />Weights</a>
        ${service?.exportsOnnx && html`<a class="button" href=${`/v1/models/${document.name}/versions/${document.version}/onnx`} download><${Download} />ONNX</a>`}
        <a class="button primary" href=${`#/restore?model=${reference}`}>Restore an image</a>
      </div>
    </header>
    <${Promote} model=${model} shown=${document} reload=${reload} />
    <section class="panel" aria-labelledby="measured-title">
      <h2 id="measured-title">What it is worth</h2>
      ${card.metrics && html`<${Gain} metrics=${card.metrics} /><div class="two"><${Metrics} metrics=${card.metrics} /><${Candidates} metrics=${card.metrics} /></div>`}
    </section>
    ${card.metrics?.per_pair?.length > 0 && html`<${HeldOut} metrics=${card.metrics} dataset=${card.dataset?.id} reference=${reference} />`}
    <div class="two">
      <section class="panel"><${Gammas} ranked=${gammas} /><p><a href=${`#/jobs/${document.job_id}`}>The job, with its relation graph</a></p></section>
      <${Card} document=${document} />
    </div>`;
}

function Promote({ model, shown, reload }) {
  const [problem, setProblem] = useState(null);
  const used = model.aliases.production;
  if (used === shown.version) return null;
  const promote = () => sendJson("PUT", `/v1/models/${model.name}/aliases/production`, { version: shown.version }).then(reload, setProblem);
  return html`
    <div class="note warn">
      <p>${used ? `Requests that name no version get version ${used}.` : "No version is in use: the training brought no gain over leaving images as they are."}</p>
      <div class="row"><button type="button" class="button little" onClick=${promote}>Use version ${shown.version} by default</button></div>
      <${ProblemNote} problem=${problem} />
    </div>`;
}

const trainedOn = (pairs, metrics) =>
  metrics?.protocol === "pairs" ? `${pairs - metrics.held_out.length} of ${plural(pairs, "pair")}, ${metrics.held_out.length} held out` : plural(pairs, "pair");

/** The card's facts in words; what is not known here is left to the raw card below. */
function Card({ document }) {
  const { card } = document;
  const facts = [
    ["Start", CANDIDATES[card.chosen] ?? card.chosen],
    ["Network", [card.backbone, card.unshuffle > 1 ? `at 1/${card.unshuffle} resolution` : "", card.parameters ? `${fixed(card.parameters / 1e6, 2)} million weights` : ""].filter(Boolean).join(", ")],
    ["Enlarges", card.scale > 1 ? `${card.scale} times` : "no"],
    ["Preset", card.options?.preset],
    ["Seed", card.options?.seed],
    ["Trained on", card.dataset && trainedOn(card.dataset.pairs, card.metrics)],
    ["Prior", card.prior],
    ["Code", card.code_version],
    ["Licence", card.licence],
    ["Weights", html`<code title="SHA-256">${document.weights_sha256.slice(0, 16)}…</code>`],
  ];
  return html`
    <section class="panel" aria-labelledby="card-title">
      <h2 id="card-title">Card</h2>
      <dl class="facts">${facts.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([term, value]) => html`<dt key=${term}>${term}</dt><dd>${value}</dd>`)}</dl>
      <details><summary>Options and hashes of the data</summary>
        <dl class="facts">
          ${Object.entries(card.options ?? {}).map(([term, value]) => html`<dt key=${term}>${words(term)}</dt><dd><code>${value === null ? "–" : String(value)}</code></dd>`)}
          ${(card.dataset?.sha256 ?? []).map(({ clean, distorted }, place) => html`<dt key=${place}>pair ${place + 1}</dt><dd><code title=${`clean ${clean}, distorted ${distorted}`}>${clean.slice(0, 12)}… / ${distorted.slice(0, 12)}…</code></dd>`)}
        </dl>
      </details>
    </section>`;
}
