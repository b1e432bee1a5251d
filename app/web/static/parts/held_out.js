// Metrics of every held-out pair, and a look at it: input against what the model makes of it.

import { html, useEffect, useState } from "../lib/html.js";
import { get, send } from "../lib/api.js";
import { decibels, fixed, signed } from "../lib/format.js";
import { restore } from "../lib/restore.js";
import { Compare } from "./compare.js";
import { ProblemNote } from "./note.js";
import { pairImage } from "./pairs.js";
import { Scroll } from "./scroll.js";

export function HeldOut({ metrics, dataset, reference }) {
  const [open, setOpen] = useState(null);
  return html`
    <section class="panel" aria-labelledby="held-out-title">
      <h2 id="held-out-title">Pair by pair</h2>
      <p class="small soft">${metrics.protocol === "halves" ? "Measured on parts of each pair that were not trained on." : "These pairs took part in no training."}</p>
      <${Scroll} label="Table of held-out pairs">
        <table>
          <caption class="unseen">Quality by held-out pair</caption>
          <thead><tr><th scope="col">Pair</th><th scope="col" class="number">Input</th><th scope="col" class="number">Model</th><th scope="col" class="number">Gain</th><th scope="col" class="number roomy">SSIM</th><td></td></tr></thead>
          <tbody>
            ${metrics.per_pair.map((pair) => html`<tr key=${pair.name}>
              <th scope="row">${pair.name}</th><td class="number">${decibels(pair.input_psnr)}</td><td class="number">${decibels(pair.result_psnr)}</td>
              <td class="number">${signed(pair.result_psnr - pair.input_psnr)}</td><td class="number roomy">${fixed(pair.input_ssim, 3)} → ${fixed(pair.result_ssim, 3)}</td>
              <td>${dataset && html`<button type="button" class="button little" aria-expanded=${open === pair.name} onClick=${() => setOpen(open === pair.name ? null : pair.name)}>${open === pair.name ? "Close" : "Look"}<span class="unseen"> at ${pair.name}</span></button>`}</td></tr>`)}
          </tbody>
        </table>
      <//>
      ${open && html`<${Look} key=${open} name=${open} dataset=${dataset} reference=${reference} />`}
    </section>`;
}

/** The pair's distorted image, sent through the model now. */
function Look({ name, dataset, reference }) {
  const [result, setResult] = useState(null);
  const [problem, setProblem] = useState(null);
  const [against, setAgainst] = useState("distorted");
  useEffect(() => {
    const stopping = new AbortController();
    let url = null;
    (async () => {
      const { pairs } = await get(`/v1/datasets/${dataset}`);
      const position = pairs.findIndex((pair) => pair.name === name);
      const image = await (await send(pairImage(dataset, position, "distorted"), { signal: stopping.signal })).blob();
      const { blob } = await restore(reference, image, { signal: stopping.signal });
      url = URL.createObjectURL(blob);
      const { clean } = pairs[position];
      setResult({ url, position, width: clean.width, height: clean.height });
    })().catch((error) => error.name !== "AbortError" && setProblem(error));
    return () => (stopping.abort(), url && URL.revokeObjectURL(url));
  }, [name, dataset, reference]);

  if (problem) return html`<${ProblemNote} problem=${problem} />`;
  if (!result) return html`<p class="soft" role="status">Restoring ${name} …</p>`;
  const words = { distorted: "Input", clean: "Clean" };
  const image = (side) => ({ src: pairImage(dataset, result.position, side), alt: `${name}, ${words[side].toLowerCase()}`, tag: words[side] });
  const restored = { src: result.url, alt: `${name}, restored`, tag: "Restored" };
  const [before, after] = against === "distorted" ? [image("distorted"), restored] : [restored, image("clean")];
  return html`
    <div class="stack tight">
      <div class="row tight" role="group" aria-label="Compare the restored image with">
        ${["distorted", "clean"].map((side) => html`<button key=${side} type="button" class="button little" aria-pressed=${against === side} onClick=${() => setAgainst(side)}>with ${side === "distorted" ? "the input" : "the clean image"}</button>`)}
      </div>
      <${Compare} before=${before} after=${after} width=${result.width} height=${result.height} />
    </div>`;
}
