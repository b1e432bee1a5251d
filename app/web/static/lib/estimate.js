// How long a training will take, said before it starts.

import { list } from "./api.js";

/**
 * Seconds on two CPU cores. `draft` and `quick` are measured (docs/results.md): 800 steps of 8 crops in all candidates of
 * `quick`. The others are no more than that pace times their own steps and crops: 16,000 of 16, and 170,000 of 32.
 */
const GUESS = { draft: 45, quick: 130, standard: 130 * 40, paper: 130 * 850 };

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
