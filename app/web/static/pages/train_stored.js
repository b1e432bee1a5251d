// A new training on pairs that the service has: the service's word on each, a name, a preset, and go.

import { html, useState } from "../lib/html.js";
import { get } from "../lib/api.js";
import { when } from "../lib/format.js";
import { useLoaded } from "../lib/load.js";
import { Checked } from "../parts/checked.js";
import { ProblemNote, Waiting } from "../parts/note.js";
import { Pairs } from "../parts/pairs.js";
import { Start } from "../parts/start.js";
import { Title } from "../parts/title.js";

export function TrainStored({ id }) {
  const { value: dataset, problem, reload } = useLoaded(() => get(`/v1/datasets/${encodeURIComponent(id)}`), id);
  const [name, setName] = useState("my-device");
  return html`
    <header>
      <${Title}>Train on pairs that are here already<//>
      <p class="lead">The service keeps the pairs of a training, so that they need not be sent again.${dataset && ` These came on ${when(dataset.created_at)}.`}</p>
    </header>
    ${problem && (problem.kind === "not-found" ? html`<${Gone} problem=${problem} />` : html`<${ProblemNote} problem=${problem}>
        <button type="button" class="button little" onClick=${reload}>Try again</button><a class="button little" href="#/">Choose pairs</a><//>`)}
    ${!dataset && !problem && html`<${Waiting} what="the pairs" />`}
    ${dataset && html`
      <div class="with-side">
        <section class="stack" aria-label="Check of the pairs">
          <${Checked} dataset=${dataset}><a class="button little" href="#/">Choose other pairs</a><//>
          <${Pairs} pairs=${null} dataset=${dataset} />
        </section>
        <aside><${Start} dataset=${dataset} name=${name} setName=${setName} /></aside>
      </div>`}`;
}

function Gone({ problem }) {
  return html`
    <div class="note bad" role="alert">
      <h2>These pairs are gone</h2>
      <p>${problem.document.detail} Pairs that no training has used are removed after a while. Choose your files again to train on them.</p>
      <div class="row"><a class="button little" href="#/">Choose pairs</a></div>
    </div>`;
}
