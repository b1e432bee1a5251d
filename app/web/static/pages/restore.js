// An image through a model, and the result beside it.

import { html, useEffect, useId, useRef, useState } from "../lib/html.js";
import { list, send, sendJson } from "../lib/api.js";
import { bytes, duration, fixed, words } from "../lib/format.js";
import { useLoaded } from "../lib/load.js";
import { restore } from "../lib/restore.js";
import { useService } from "../lib/service.js";
import { Compare } from "../parts/compare.js";
import { DropZone } from "../parts/drop_zone.js";
import { Download, Picture } from "../parts/icons.js";
import { Bar, Empty, ProblemNote, Waiting } from "../parts/note.js";
import { Option } from "../parts/options.js";
import { Title } from "../parts/title.js";

const ENDINGS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/tiff": "tif" };
const FORMAT_WORDS = { "image/png": "PNG, lossless", "image/jpeg": "JPEG", "image/webp": "WebP", "image/tiff": "TIFF" };
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
  const auto = service?.picksModel ? [{ value: "auto", text: "auto: the model nearest to the image" }] : [];
  const all = [...auto, ...inUse, ...numbered];
  return wanted && !all.some(({ value }) => value === wanted) ? [{ value: wanted, text: wanted }, ...all] : all;
}

function Bench({ models, service, wanted }) {
  const choices = references(models, service, wanted);
  const [model, setModel] = useState(wanted ?? choices[0].value);
  const [format, setFormat] = useState("image/png");
  const [extras, setExtras] = useState({});
  const [image, setImage] = useState(null);
  const [run, setRun] = useState({ state: "idle" });
  const stopping = useRef(null);
  const ids = useId();

  const start = async (file) => {
    stopping.current?.abort();
    const stop = (stopping.current = new AbortController());
    setImage(file);
    setRun({ state: "sending", since: Date.now() });
    try {
      const options = Object.fromEntries(Object.entries(extras).filter(([, value]) => value !== undefined));
      const onLook = (operation) => setRun((old) => ({ ...old, state: operation.state, operation }));
      const result = await restore(model, file, { format, options, onLook, signal: stop.signal });
      setRun({ state: "done", result });
    } catch (failure) {
      if (failure.name !== "AbortError") setRun({ state: "failed", problem: failure });
    }
  };
  const stop = () => {
    stopping.current?.abort();
    // The work goes on where the service cannot stop it; its result is then forgotten unseen.
    if (run.operation && service?.cancelsOperations) sendJson("POST", `/v1/operations/${run.operation.id}/cancel`).catch(() => {});
    setRun({ state: "idle" });
  };
  const takeDemo = async () => {
    stopping.current?.abort();
    const stop = (stopping.current = new AbortController()); // An image of the visitor's own, given meanwhile, comes first.
    setRun({ state: "demo", since: Date.now() });
    try {
      const blob = await (await send("/demo/photo.png", { signal: stop.signal })).blob();
      start(new File([blob], "demo-photo.png", { type: "image/png" }));
    } catch (failure) {
      if (failure.name !== "AbortError") setRun({ state: "failed", problem: failure });
    }
  };
  useEffect(() => () => stopping.current?.abort(), []);

  const waits = run.state in SAID;
  const known = service?.restoreOptions ?? {};
  const offered = Object.entries(EXTRAS).filter(([name]) => known[name]);
  const further = Object.values(known).filter(({ name }) => !EXTRAS[name]);
  const setExtra = (name, value) => setExtras({ ...extras, [name]: value });
  return html`
    <header><${Title}>Restore an image<//><p class="lead">Everything happens on this service; your image goes nowhere else, and is forgotten an hour after it was done.</p></header>
    <div class="with-side">
      <section class="stack" aria-label="Image">
        <${DropZone} label="Your image" icon=${Picture} accept="image/*,.tif,.tiff" filled=${image && `${image.name}, ${bytes(image.size)}`} hint="Drop one image here, or choose it."
          onFiles=${(found) => start(found[0].file)}>
          ${!waits && html`<button type="button" class="button little" onClick=${takeDemo}>Use a demo photo</button>`}
        <//>
        ${waits && html`<${Working} run=${run} onStop=${stop} />`}
        ${run.state === "failed" && html`<${ProblemNote} problem=${run.problem}>
          ${image && html`<button type="button" class="button little" onClick=${() => start(image)}>Try again</button>`}<//>`}
        ${run.state === "done" && html`<${Result} image=${image} result=${run.result} />`}
      </section>
      <aside>
        <section class="panel" aria-label="Options">
          <h2>How</h2>
          <div class="field">
            <label for=${`${ids}-model`}>Model</label>
            <select id=${`${ids}-model`} value=${model} onChange=${(event) => setModel(event.currentTarget.value)}>
              ${choices.map(({ value, text }) => html`<option key=${value} value=${value}>${text}</option>`)}
            </select>
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
          ${image && !waits && html`<button type="button" class="button wide" onClick=${() => start(image)}>Restore again with these</button>`}
        </section>
      </aside>
    </div>`;
}

const SAID = { demo: "Taking the demo photo …", sending: "Sending the image …", queued: "Waiting for a worker …", running: "Restoring …", cancelling: "Stopping …" };

function Working({ run, onStop }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const seconds = (now - run.since) / 1000;
  return html`
    <div class="panel stack tight" role="status">
      <div class="row between"><span>${SAID[run.state]}</span>${seconds >= 1 && html`<span class="number soft" aria-hidden="true">${duration(seconds)}</span>`}</div>
      <${Bar} share=${run.operation?.progress || null} label="Restoring the image" />
      ${run.state !== "demo" && html`<div><button type="button" class="button little" onClick=${onStop}>Stop waiting</button></div>`}
    </div>`;
}

function useUrl(blob) {
  const [url, setUrl] = useState(null);
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return url;
}

function Result({ image, result }) {
  const before = useUrl(image);
  const after = useUrl(result.blob);
  const [size, setSize] = useState(null);
  const [unseen, setUnseen] = useState(null);
  useEffect(() => {
    if (!before || !after) return;
    setSize(null);
    setUnseen(null);
    const look = (url, name) => {
      const picture = new Image();
      picture.src = url;
      return picture.decode().then(() => [picture.naturalWidth, picture.naturalHeight], () => Promise.reject(name));
    };
    Promise.all([look(after, "result"), look(before, "input")]).then(([[width, height]]) => setSize({ width, height }), setUnseen);
  }, [before, after]);
  const name = `${image.name.replace(/\.[^.]*$/, "")}-restored.${ENDINGS[result.blob.type] ?? "png"}`;
  const overlay = result.trust && { src: result.trust, alt: "Map of how far the result can be trusted", name: "Trust map", legend: "The brighter, the less the result is to be trusted." };
  return html`
    <div class="panel stack" aria-label="Result" role="region">
      ${size && html`<${Compare} before=${{ src: before, alt: "Your image", tag: "Input" }} after=${{ src: after, alt: "The restored image", tag: "Restored" }} overlay=${overlay} ...${size} />`}
      ${unseen && html`<p>A browser cannot show the ${unseen === "input" ? "file that you sent" : `${result.blob.type.split("/")[1].toUpperCase()} that came back`}, but the result is there to download.</p>`}
      <div class="row between">
        <p class="small soft" role="status">Restored by <strong>${result.model}</strong>${result.seconds === null ? "" : ` in ${fixed(result.seconds, 1)} s`}${size ? `, ${size.width}×${size.height}` : ""}, ${bytes(result.blob.size)}.
          ${result.match !== null && html` Match of the image with what the model was trained on: <strong title=${`Score ${fixed(result.matchScore)} of 1`}>${words(result.match)}</strong>. ${result.matchSentence}`}</p>
        ${after && html`<a class="button primary" href=${after} download=${name}><${Download} />Download</a>`}
      </div>
    </div>`;
}
