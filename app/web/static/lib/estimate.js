// How long a training will take, said before it starts.

import { list } from "./api.js";

/** Seconds on two CPU cores: `quick` measured (docs/results.md), the others by their steps at its pace. */
const GUESS = { quick: 130, standard: 4 * 3600, paper: 8 * 86400 };

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** @returns {Promise<Record<string, {seconds: number, jobs: number}>>} by preset; `jobs` is how many it is learnt from */
export async function estimates() {
  const done = await list("/v1/jobs?state=succeeded", 100);
  const whole = done.filter(({ options, attempt }) => options.finetune_steps == null && options.transfer_steps == null && attempt === 1);
  const entries = Object.entries(GUESS).map(([preset, guess]) => {
    const times = whole
      .filter(({ options }) => options.preset === preset && options.scheme === "auto")
      .map((job) => (new Date(job.finished_at) - new Date(job.started_at)) / 1000);
    return [preset, { seconds: times.length ? median(times) : guess, jobs: times.length }];
  });
  return Object.fromEntries(entries);
}
