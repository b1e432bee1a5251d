// What the service found in pairs, in a line.

import { html } from "../lib/html.js";
import { plural } from "../lib/format.js";
import { isUsable } from "./badge.js";

/** The service's summary without what to send for a fix, which only a program has to know. */
const inWords = (summary = "") => summary.replace(/[^.]*\bfix=\S*/, "").trim();

/** @param {{dataset: any, fixes?: string[], children?: unknown}} props `fixes` were asked for; `children` are the next steps. */
export function Checked({ dataset, fixes = [], children }) {
  const bad = dataset.pairs.filter(({ verdict }) => !isUsable(verdict)).length;
  return html`
    <div class="row between" role="status">
      <div>
        <h2>${plural(dataset.pairs.length, "pair")} checked</h2>
        <p class="small soft">${inWords(dataset.summary) || (bad === 0 ? "All of them can be trained on." : `${bad} of them will hurt the training: replace or remove what is marked red.`)}
          ${fixes.length > 0 ? ` Applied: ${fixes.join(", ").replaceAll("_", " ")}.` : ""}</p>
      </div>
      ${children}
    </div>`;
}
