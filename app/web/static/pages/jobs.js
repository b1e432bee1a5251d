// All trainings, newest first.

import { html, useEffect } from "../lib/html.js";
import { list } from "../lib/api.js";
import { about, signed, when } from "../lib/format.js";
import { ENDED } from "../lib/follow.js";
import { useLoaded } from "../lib/load.js";
import { StateBadge } from "../parts/badge.js";
import { Graph } from "../parts/icons.js";
import { Empty, ProblemNote, Waiting } from "../parts/note.js";
import { Title } from "../parts/title.js";

const LOOK_AGAIN_MS = 3000;

export function Jobs() {
  const { value: jobs, problem, reload } = useLoaded(() => list("/v1/jobs", 200), "jobs");
  const anyRuns = jobs?.some(({ state }) => !ENDED.has(state));
  // A while after each answer, a failed one too: a look beside one that is under way would have that one forgotten.
  useEffect(() => {
    if (!anyRuns) return undefined;
    const timer = setTimeout(reload, LOOK_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [jobs, problem]);
  return html`
    <header class="row between"><${Title}>Jobs<//><a class="button" href="#/">New training</a></header>
    <${ProblemNote} problem=${problem}><button type="button" class="button little" onClick=${reload}>Try again</button><//>
    ${!jobs && !problem && html`<${Waiting} what="jobs" />`}
    ${jobs?.length === 0 && html`
      <${Empty} icon=${Graph} title="No training yet"><p class="soft">A job makes a model from your pairs.</p><a class="button primary" href="#/">Train a model</a><//>`}
    ${jobs?.length > 0 && html`
      <ul class="entries">
        ${jobs.map((job) => html`<li key=${job.id}><a class="entry" href=${`#/jobs/${job.id}`}>
          <span><strong>${job.name}</strong><br /><span class="small soft">${when(job.created_at)}</span></span>
          <span class="small soft">${summary(job)}</span>
          <${StateBadge} state=${job.state} /></a></li>`)}
      </ul>`}`;
}

function summary(job) {
  if (job.state === "succeeded") {
    return job.verdict === "gain" ? `${signed(job.metrics.gain_db)} dB over the input, version ${job.model.version}` : "no gain over the input";
  }
  if (job.state === "failed") return job.error?.message ?? "";
  if (job.state === "running") return `${Math.round(100 * job.progress)} %${job.eta_s ? `, ${about(job.eta_s)} to go` : ""}`;
  return "";
}
