// All models, by name.

import { html } from "../lib/html.js";
import { get, list } from "../lib/api.js";
import { plural, signed, when } from "../lib/format.js";
import { useLoaded } from "../lib/load.js";
import { Picture } from "../parts/icons.js";
import { Empty, ProblemNote, Waiting } from "../parts/note.js";
import { Title } from "../parts/title.js";

/** Models with the card of the version that is used, or else of the newest. */
async function withCards() {
  const models = await list("/v1/models", 500);
  return Promise.all(models.map(async (model) => {
    const version = model.aliases.production ?? model.versions[0];
    const { card } = await get(`/v1/models/${model.name}/versions/${version}`);
    return { ...model, version, card };
  }));
}

export function Models() {
  const { value: models, problem, reload } = useLoaded(withCards, "models");
  return html`
    <header class="row between"><${Title}>Models<//><a class="button" href="#/">Train a model</a></header>
    <${ProblemNote} problem=${problem}><button type="button" class="button little" onClick=${reload}>Try again</button><//>
    ${!models && !problem && html`<${Waiting} what="models" />`}
    ${models?.length === 0 && html`<${Empty} icon=${Picture} title="No model yet"><p class="soft">A training registers its model here.</p><a class="button primary" href="#/">Train a model</a><//>`}
    ${models?.length > 0 && html`
      <ul class="entries">
        ${models.map(({ name, versions, aliases, created_at: made, version, card }) => html`<li key=${name}><a class="entry" href=${`#/models/${name}`}>
          <span><strong>${name}</strong><br /><span class="small soft">${plural(versions.length, "version")}, ${when(made)}</span></span>
          <span class="small soft">${card.metrics ? `${signed(card.metrics.gain_db)} dB over the input` : ""}${card.backbone ? `, ${card.backbone}` : ""}</span>
          ${aliases.production ? html`<span class="badge good">in use: ${version}</span>` : html`<span class="badge warn">not in use</span>`}</a></li>`)}
      </ul>`}`;
}
