// Failures, empty places and waiting, in words.

import { html } from "../lib/html.js";
import { Problem } from "../lib/api.js";

/** A failure with its detail and the files that it names, each sentence once; children are the next steps. */
export function ProblemNote({ problem, children }) {
  if (!problem) return null;
  const document = problem instanceof Problem ? problem.document : { title: "The page itself failed", detail: String(problem.message ?? problem) };
  const files = (document.files ?? []).filter(({ reason }) => !document.detail.includes(reason));
  const parts = (document.errors ?? []).filter(({ detail }) => detail !== document.detail);
  return html`
    <div class="note bad" role="alert">
      <h3>${document.title}</h3>
      <p>${document.detail}</p>
      ${files.length > 0 && html`<ul aria-label="Files concerned">
        ${files.map(({ name, reason }) => html`<li key=${name + reason}><code>${name}</code> ${reason}</li>`)}
      </ul>`}
      ${files.length === 0 && parts.length > 0 && html`<ul aria-label="What is wrong">
        ${parts.map(({ pointer, detail }) => html`<li key=${pointer}><code>${pointer.replace(/^\//, "")}</code> ${detail}</li>`)}
      </ul>`}
      ${children && html`<div class="row">${children}</div>`}
    </div>`;
}

export function Empty({ icon: Icon, title, children }) {
  return html`<section class="panel empty"><${Icon} /><h2>${title}</h2>${children}</section>`;
}

export function Waiting({ what }) {
  return html`
    <div class="panel stack" role="status">
      <span class="unseen">Loading ${what} …</span>
      <div class="skeleton" style=${{ width: "40%", height: "1.4em" }}></div>
      <div class="skeleton" style=${{ height: "5em" }}></div>
    </div>`;
}

/** A bar for how far something is; `share` null where nobody knows. */
export function Bar({ share, label }) {
  const known = share !== null && share !== undefined;
  const value = known ? { "aria-valuenow": Math.round(100 * share), "aria-valuemin": 0, "aria-valuemax": 100 } : {};
  return html`
    <div class=${`bar ${known ? "" : "unknown"}`} role="progressbar" aria-label=${label} ...${value}>
      <i style=${known ? { width: `${(100 * share).toFixed(1)}%` } : {}}></i>
    </div>`;
}
