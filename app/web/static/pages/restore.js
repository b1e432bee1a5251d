// Images through a model, one after the other, each with its result beside it.

import { html, useEffect, useId, useRef, useState } from "../lib/html.js";
import { list, send, sendJson } from "../lib/api.js";
import { bytes, plural } from "../lib/format.js";
import { useLoaded } from "../lib/load.js";
import { restore } from "../lib/restore.js";
import { useService } from "../lib/service.js";
import { DropZone } from "../parts/drop_zone.js";
import { Picture } from "../parts/icons.js";
import { Empty, ProblemNote, Waiting } from "../parts/note.js";
import { Option } from "../parts/options.js";
import { Restored, isUnderWay } from "../parts/restored.js";
import { Title } from "../parts/title.js";

const FORMAT_WORDS = { "image/png": "PNG, lossless", "image/jpeg": "JPEG", "image/webp": "WebP", "image/tiff": "TIFF" };
const MOST_LETTERS = 28; // What a field shows of its choice; of a longer one the whole stands below it.
/** Options that have a field here where the service has them: how the field is called, and what it sends. */
const EXTRAS = {
  ensemble: { text: "Average over 8 turns and flips: slower, a little better", on: 8 },
  explain: { text: "Draw a map of how far the result can be trusted", on: true },
};

export function Restore({ query }) {
  const service = useService();
  const { value: models, problem, reload } = useLoaded(() => list("/v1/models", 500), "models");
  if (problem) return html`<${Title}>Restore an image<//><${ProblemNote} problem=${problem}><button type="button" class="button little" onClick=${reload}>Try again</button><//>`;
  if (!models) return html`<${Title}>Restore an image<//><${Waiting} what="models" />`;
  if (models.length === 0) {
    return html`<${Title}>Restore an image<//>
      <${Empty} icon=${Picture} title="There is no model yet"><p class="soft">Train one with a few pairs of your device first; it takes minutes.</p><a class="button primary" href="#/">Train a model</a><//>`;
  }
  return html`<${Bench} key=${query.get("model") ?? ""} models=${models} service=${service} wanted=${query.get("model")} />`;
}

/** Everything that may stand in a request: models in use by name, then versions by number. */
function references(models, service, wanted) {
  const inUse = models.filter(({ aliases }) => aliases.production).map(({ name, aliases }) => ({ value: name, text: `${name} (version ${aliases.production}, in use)` }));
  const numbered = models.flatMap(({ name, versions }) => versions.map((version) => ({ value: `${name}@${version}`, text: `${name}, version ${version}` })));
  const auto = service?.picksModel ? [{ value: "auto", text: "auto: nearest to the image" }] : [];
  const all = [...auto, ...inUse, ...numbered];
  return wanted && !all.some(({ value }) => value === wanted) ? [{ value: wanted, text: wanted }, ...all] : all;
}

function Bench({ models, service, wanted }) {
  const choices = references(models, service, wanted);
  const [model, setModel] = useState(wanted ?? choices[0].value);
  const [format, setFormat] = useState("image/png");
  const [extras, setExtras] = useState({});
  const [items, setItems] = useState([]);
  const [demo, setDemo] = useState({ state: "idle" });
  const stopping = useRef(new AbortController()); // What ends everything that is under way.
  const ids = useId();

  const anew = () => {
    stopping.current.abort();
    return (stopping.current = new AbortController()).signal;
  };
  const options = () => Object.fromEntries(Object.entries(extras).filter(([, value]) => value !== undefined));
  const setRun = (place, change) => setItems((all) => all.map((item, index) => (index === place ? { ...item, run: { ...item.run, ...change } } : item)));
  /** Restore one; what fails is told in its place. Each is stopped by itself, or with all of them. */
  const restoreOne = async ({ file, stop }, place, all) => {
    const end = AbortSignal.any([all, stop.signal]);
    if (end.aborted) return;
    setRun(place, { state: "sending", since: Date.now(), operation: null });
    try {
      const onLook = (operation) => end.aborted || setRun(place, { state: operation.state, operation });
      const result = await restore(model, file, { format, options: options(), onLook, signal: end });
      if (!end.aborted) setRun(place, { state: "done", result });
    } catch (problem) {
      if (!end.aborted) setRun(place, { state: "failed", problem });
    }
  };
  const start = async (files) => {
    const all = anew();
    setDemo({ state: "idle" });
    const made = files.map((file) => ({ file, stop: new AbortController(), run: { state: "waiting", since: Date.now() } }));
    setItems(made);
    for (const [place, item] of made.entries()) await restoreOne(item, place, all);
  };
  const again = (place) => {
    const item = { file: items[place].file, stop: new AbortController(), run: { state: "waiting" } };
    setItems((all) => all.map((old, index) => (index === place ? item : old)));
    restoreOne(item, place, stopping.current.signal);
  };
  const stop = (place) => {
    const { stop: own, run } = items[place];
    own.abort();
    // The work goes on where the service cannot stop it; its result is then forgotten unseen.
    if (run.operation && service?.cancelsOperations) sendJson("POST", `/v1/operations/${run.operation.id}/cancel`).catch(() => {});
    setRun(place, { state: "stopped" });
  };
  const takeDemo = async () => {
    const all = anew(); // Images of the visitor's own, given meanwhile, come first.
    setItems([]);
    setDemo({ state: "taking" });
    try {
      const blob = await (await send("/demo/photo.png", { signal: all })).blob();
      start([new File([blob], "demo-photo.png", { type: "image/png" })]);
    } catch (problem) {
      if (!all.aborted) setDemo({ state: "failed", problem });
    }
  };
  useEffect(() => () => stopping.current.abort(), []);

  const waits = demo.state === "taking" || items.some(({ run }) => isUnderWay(run));
  const ended = items.filter(({ run }) => !isUnderWay(run)).length;
  const [only] = items.length === 1 ? items : [null];
  const chosen = choices.find(({ value }) => value === model)?.text ?? model;
  const known = service?.restoreOptions ?? {};
  const offered = Object.entries(EXTRAS).filter(([name]) => known[name]);
  const further = Object.values(known).filter(({ name }) => !EXTRAS[name]);
  const setExtra = (name, value) => setExtras({ ...extras, [name]: value });
  return html`
    <header><${Title}>Restore an image<//><p class="lead">Everything happens on this service; your image goes nowhere else, and is forgotten an hour after it was done.</p></header>
    <div class="with-side">
      <section class="stack" aria-label="Images">
        <${DropZone} label="Your images" icon=${Picture} accept="image/*,.tif,.tiff" multiple
          filled=${only ? `${only.file.name}, ${bytes(only.file.size)}` : items.length > 0 ? `${plural(items.length, "file")}, ${ended} done` : undefined}
          hint="Drop images here, or choose them: one, or several at once." onFiles=${(found) => start(found.map(({ file }) => file))}>
          ${!waits && html`<button type="button" class="button little" onClick=${takeDemo}>Use a demo photo</button>`}
        <//>
        ${demo.state === "taking" && html`<p class="soft" role="status">Taking the demo photo …</p>`}
        ${demo.state === "failed" && html`<${ProblemNote} problem=${demo.problem} />`}
        ${items.length > 0 && html`<ul class="stack" aria-label="Your images, restored">
          ${items.map(({ file, run }, place) => html`<${Restored} key=${place} file=${file} run=${run} alone=${items.length === 1} onStop=${() => stop(place)} onAgain=${() => again(place)} />`)}
        </ul>`}
      </section>
      <aside>
        <section class="panel" aria-label="Options">
          <h2>How</h2>
          <div class="field">
            <label for=${`${ids}-model`}>Model</label>
            <select id=${`${ids}-model`} value=${model} onChange=${(event) => setModel(event.currentTarget.value)}>
              ${choices.map(({ value, text }) => html`<option key=${value} value=${value}>${text}</option>`)}
            </select>
            ${chosen.length > MOST_LETTERS && html`<p class="hint">${chosen}</p>`}
          </div>
          <div class="field">
            <label for=${`${ids}-format`}>Format of the result</label>
            <select id=${`${ids}-format`} value=${format} onChange=${(event) => setFormat(event.currentTarget.value)}>
              ${(service?.formats ?? ["image/png"]).map((each) => html`<option key=${each} value=${each}>${FORMAT_WORDS[each] ?? each}</option>`)}
            </select>
          </div>
          ${offered.map(([name, { text, on }]) => html`
            <label class="check" key=${name}><input type="checkbox" checked=${extras[name] === on} onChange=${(event) => setExtra(name, event.currentTarget.checked ? on : undefined)} /><span>${text}</span></label>`)}
          ${further.length > 0 && html`<details><summary>Further options</summary><div class="stack">
            ${further.map((option) => html`<${Option} key=${option.name} option=${option} value=${extras[option.name]} onChange=${(value) => setExtra(option.name, value)} />`)}
          </div></details>`}
          ${items.length > 0 && !waits && html`<button type="button" class="button wide" onClick=${() => start(items.map(({ file }) => file))}>Restore again with these</button>`}
        </section>
      </aside>
    </div>`;
}
