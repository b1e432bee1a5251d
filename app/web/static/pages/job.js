// One training, from the queue to the model, as it happens.

import { html, useEffect, useState } from "../lib/html.js";
import { get, sendJson } from "../lib/api.js";
import { ENDED, useJob } from "../lib/follow.js";
import { about, decibels, duration, plural, words } from "../lib/format.js";
import { useLoaded } from "../lib/load.js";
import { StateBadge } from "../parts/badge.js";
import { CANDIDATES, Curves } from "../parts/curves.js";
import { Candidates, Gain, Metrics } from "../parts/metrics.js";
import { Bar, ProblemNote, Waiting } from "../parts/note.js";
import { Relation, transfers } from "../parts/relation.js";
import { Title } from "../parts/title.js";

const PHASES = [
  ["validating", "Reading the pairs"],
  ["embedding", "Relating the distortion"],
  ["transferring", "Transferring"],
  ["fine_tuning", "Fine-tuning"],
  ["evaluating", "Measuring"],
  ["registering", "Registering"],
];

/** Whether there is a phase of transfer. Before the graph is there, what was asked for tells of most jobs that have none. */
function hasTransfer({ options: { scheme, preset, transfer_steps: steps } }, graph) {
  if (graph) return transfers(graph);
  return scheme !== "baseline" && (steps ?? (preset === "draft" ? 0 : 1)) > 0;
}

export function JobPage({ id }) {
  const { job, setJob, problem, known, connected } = useJob(id);
  const related = Boolean(known.hasGraph || job?.metrics);
  const graph = useLoaded(() => (related ? get(`/v1/jobs/${id}/graph`) : Promise.resolve(null)), `graph ${id} ${related}`);
  useEffect(() => {
    if (job) document.title = `${job.state === "running" ? `${Math.round(100 * job.progress)} % · ` : ""}${job.name} · DRTL`;
  }, [job?.name, job?.state, Math.round(100 * (job?.progress ?? 0))]);

  if (problem) return html`<${Title}>Job<//><${ProblemNote} problem=${problem}><a class="button little" href="#/jobs">All jobs</a><//>`;
  if (!job) return html`<${Title}>Job<//><${Waiting} what="the job" />`;
  const trained = Object.keys(known.loss).length > 0 || known.preview;
  return html`
    <header class="row between">
      <div><${Title}>${job.name}<//><p class="row tight soft small"><${StateBadge} state=${job.state} /> <code>${job.id}</code></p></div>
      <${Cancel} job=${job} setJob=${setJob} />
    </header>
    ${!connected && html`<div class="note warn" role="status"><p>The connection to the service is lost. The training goes on without this page; trying again …</p></div>`}
    <p class="unseen" role="status">${ending(job)}</p>
    <${Outcome} job=${job} />
    ${!ENDED.has(job.state) && html`<${Progress} job=${job} known=${known} transfer=${hasTransfer(job, graph.value)} />`}
    ${trained && html`
      <section class="panel" aria-labelledby="training-title">
        <h2 id="training-title">${ENDED.has(job.state) ? "How the training went" : "The training"}</h2>
        ${known.preview && html`<${Preview} preview=${known.preview} ended=${ENDED.has(job.state)} />`}
        <div class="two">
          <${Curves} title="Quality of the preview" unit="PSNR, dB" curves=${known.psnr} digits=${1} waiting="The first preview comes within seconds of training."
            reference=${known.inputPsnr === null ? null : { value: known.inputPsnr, name: "input" }} />
          <${Curves} title="Training loss" unit="L1" curves=${known.loss} digits=${3} smooth waiting="No step has been made yet." />
        </div>
      </section>`}
    ${related && html`<${Relation} graph=${graph} />`}`;
}

function Cancel({ job, setJob }) {
  const [problem, setProblem] = useState(null);
  if (ENDED.has(job.state)) return null;
  const cancel = () => sendJson("POST", `/v1/jobs/${job.id}/cancel`).then(setJob, setProblem);
  return html`
    <div class="stack tight">
      <button type="button" class="button danger" disabled=${job.state === "cancelling"} onClick=${cancel}>${job.state === "cancelling" ? "Stopping …" : "Cancel the training"}</button>
      <${ProblemNote} problem=${problem} />
    </div>`;
}

function Progress({ job, known, transfer }) {
  const phases = PHASES.filter(([phase]) => transfer || phase !== "transferring");
  const phase = job.phase === "transferring" && !transfer ? "fine_tuning" : job.phase; // The worker names the one before its first step.
  const now = phases.findIndex(([each]) => each === phase);
  const { latest } = known;
  const said = job.state === "queued"
    ? known.requeued ? `Back in the queue, because ${known.requeued.reason}. It goes on where it was.` : job.queue_position > 1 ? `Waiting for a worker, at about place ${job.queue_position} of the queue.` : "Waiting for a worker. Another training may be in front of it."
    : latest?.candidate ? `Candidate: ${CANDIDATES[latest.candidate] ?? latest.candidate}, step ${latest.step}` : (phases[now]?.[1] ?? "Starting");
  return html`
    <section class="panel" aria-label="Progress">
      <ol class="phases">
        ${phases.map(([each, text], place) => html`<li key=${each} class=${place < now ? "done" : place === now ? "now" : ""} aria-current=${place === now ? "step" : undefined}><span>${text}</span></li>`)}
      </ol>
      <${Bar} share=${job.state === "queued" ? null : job.progress} label="Progress of the training" />
      <div class="row between small soft">
        <span>${said}</span>
        <span class="number">${job.state === "queued" ? "" : `${Math.round(100 * job.progress)} %`}${job.eta_s !== null && job.state === "running" ? ` · ${about(job.eta_s)} to go` : ""}</span>
      </div>
    </section>`;
}

/** A crop of a held-out pair: as it came, as the best weights so far restore it, and as it should be. */
function Preview({ preview, ended }) {
  const panels = [
    ["Input", decibels(preview.input_psnr_db), ""],
    [ended ? "Best look" : "Best so far", decibels(preview.psnr_db), "now"],
    ["Clean", "", ""],
  ];
  return html`
    <div>
      <div class="preview">
        ${panels.map(([name, quality, cls], place) => html`
          <figure key=${name}>
            <div class=${`crop ${cls}`} style=${{ aspectRatio: `${preview.width} / ${preview.height}` }}><img src=${preview.url} alt=${`${name}: a crop of held-out pair ${preview.pair}`} style=${{ left: `${-100 * place}%` }} /></div>
            <figcaption><strong>${name}</strong> <span class="number">${quality}</span></figcaption>
          </figure>`)}
      </div>
      <p class="small soft">A crop of pair <strong>${preview.pair}</strong>, which is never trained on; restored by the candidate “${CANDIDATES[preview.candidate] ?? preview.candidate}” after ${plural(preview.step, "step")}.</p>
    </div>`;
}

/** How it ended in a line for screen readers, which say what comes into a place that was there before; a failure is an alert. */
function ending(job) {
  if (job.state === "cancelled") return "The training was cancelled.";
  if (job.state !== "succeeded") return "";
  return job.verdict === "gain" ? "The training is done. Your model is ready." : "The training is done, with no gain this time.";
}

/** How it ended, and what to do next. */
function Outcome({ job }) {
  const made = job.model;
  const version = useLoaded(() => (made ? get(`/v1/models/${made.name}/versions/${made.version}`) : Promise.resolve(null)), `made ${made?.reference}`);
  const deleted = version.problem?.kind === "not-found";
  const again = `#/?dataset=${job.dataset_id}`;
  if (job.state === "failed") {
    const unusable = ["bad-input", "file-lost"].includes(job.error?.code); // The same pairs would fail again.
    return html`<div class="note bad" role="alert"><h2>The training failed</h2><p>${job.error?.message ?? "No reason was given."}</p>
      <p class="small soft">${unusable ? "Mend, send again or leave out the pair that is named, and start anew." : "Your pairs are kept for a new try."} (${words(job.error?.code ?? "unknown")})</p>
      <div class="row"><a class="button little" href=${unusable ? "#/" : again}>${unusable ? "Start again" : "Start again with these pairs"}</a></div></div>`;
  }
  if (job.state === "cancelled") {
    return html`<div class="note"><h2>The training was cancelled</h2><p>Nothing was registered, and the name is free again.</p><div class="row"><a class="button little" href=${again}>Start another with these pairs</a></div></div>`;
  }
  if (job.state !== "succeeded") return null;
  const took = (new Date(job.finished_at) - new Date(job.started_at)) / 1000;
  const gained = job.verdict === "gain";
  return html`
    <section class="panel" aria-labelledby="outcome-title">
      <div class="row between">
        <h2 id="outcome-title">${!gained ? "No gain this time" : deleted ? "It had a gain" : "Your model is ready"}</h2>
        <span class=${`badge ${gained ? "good" : "warn"}`}>${words(job.verdict)}</span>
      </div>
      <${Gain} metrics=${job.metrics} />
      <p>${job.explanation}</p>
      ${!gained && html`<p class="soft">Next: look at the pairs' report for shifts, add pairs, or train with the preset standard.</p>`}
      ${deleted ? html`<p class="soft">${job.model.reference} was deleted since.</p>` : html`<div class="row">
        <a class="button primary" href=${`#/restore?model=${job.model.reference}`}>Restore an image</a>
        <a class="button" href=${`#/models/${job.model.name}/${job.model.version}`}>See the model</a>
      </div>`}
      <div class="two"><${Metrics} metrics=${job.metrics} /><${Candidates} metrics=${job.metrics} /></div>
      <p class="small soft">Took ${duration(took)}${job.attempt > 1 ? `, in ${job.attempt} attempts` : ""}.</p>
    </section>`;
}
