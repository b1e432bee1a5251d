// What was measured on held-out pairs.

import { html } from "../lib/html.js";
import { decibels, fixed, plural, signed } from "../lib/format.js";
import { CANDIDATES } from "./curves.js";
import { Scroll } from "./scroll.js";

export function Metrics({ metrics }) {
  const rows = [
    ["Input, left as it is", metrics.input, ""],
    ["Fine-tuned from nothing", metrics.baseline, ""],
    ["This model", metrics.result, "best"],
  ];
  const where = metrics.protocol === "halves" ? "on held-out parts of each pair" : `on ${plural(metrics.held_out.length, "held-out pair")}`;
  return html`
    <${Scroll} label="Table of quality">
      <table>
        <caption class="unseen">Quality ${where}</caption>
        <thead><tr><th scope="col">Mean ${where}</th><th scope="col" class="number">PSNR</th><th scope="col" class="number">SSIM</th></tr></thead>
        <tbody>
          ${rows.map(([name, quality, cls]) => html`<tr key=${name} class=${cls}><th scope="row">${name}</th><td class="number">${decibels(quality.psnr)}</td><td class="number">${fixed(quality.ssim, 3)}</td></tr>`)}
        </tbody>
      </table>
    <//>`;
}

export function Candidates({ metrics }) {
  if (!metrics.candidates?.length) return null;
  return html`
    <${Scroll} label="Table of candidates">
      <table>
        <caption class="unseen">The candidates of the race</caption>
        <thead><tr><th scope="col">Candidate</th><th scope="col" class="number">PSNR</th><th scope="col" class="number">Steps</th></tr></thead>
        <tbody>
          ${metrics.candidates.map((each) => html`<tr key=${each.name} class=${each.name === metrics.chosen ? "best" : ""}>
            <th scope="row">${CANDIDATES[each.name] ?? each.name}${each.name === metrics.chosen ? " – chosen" : each.stopped_early ? html` <span class="soft small">stopped early</span>` : ""}</th>
            <td class="number">${decibels(each.psnr)}</td><td class="number">${each.steps ?? "–"}</td></tr>`)}
        </tbody>
      </table>
    <//>`;
}

/** The gain in one large figure. */
export function Gain({ metrics }) {
  return html`
    <div class="figures">
      <div><p class="big">${signed(metrics.gain_db)} dB</p><p class="small soft">over the untouched input</p></div>
      <div><p class="big">${signed(metrics.result.psnr - metrics.baseline.psnr)} dB</p><p class="small soft">over training from nothing</p></div>
      <div><p class="big">${fixed(metrics.result.psnr, 1)} dB</p><p class="small soft">PSNR reached</p></div>
    </div>`;
}
