// How long a training will take, said before it starts.

import { list } from "./api.js";

/**
 * Seconds on two CPU cores. `draft` and `quick` are measured (docs/results.md): 800 steps of 8 crops in all candidates of
 * `quick`. The others are no more than that pace times their own steps and crops: 16,000 of 16, and 170,000 of 32.
 */
const GUESS = { draft: 45, quick: 130, standard: 130 * 40, paper: 130 * 850 };

function median(values) {
  const ordered = values.toSorted((a, b) => a - b);
  const half = ordered.length >> 1;
  return ordered.length % 2 ? ordered[half] : (ordered[half - 1] + ordered[half]) / 2;
}

/**
 * @returns {Promise<Record<string, {seconds: number, jobs: number, paced: boolean}>>} by preset; `jobs` is how many it is learnt
 *   from, and `paced` whether any here tells of this machine's pace
 */
export async function estimates() {
  const done = await list("/v1/jobs?state=succeeded", 100);
  const whole = done.filter(({ options, attempt }) => options.finetune_steps == null && options.transfer_steps == null && attempt === 1);
  const measured = Object.keys(GUESS).map((preset) => {
    const times = whole
      .filter(({ options }) => options.preset === preset && options.scheme === "auto")
      .map((job) => (new Date(job.finished_at) - new Date(job.started_at)) / 1000);
    return [preset, times];
  });
  // How this machine compares with the one of the guesses, by the presets that were used here.
  const paces = measured.filter(([, times]) => times.length).map(([preset, times]) => median(times) / GUESS[preset]);
  const pace = paces.length ? median(paces) : 1;
  return Object.fromEntries(measured.map(([preset, times]) => [preset, { seconds: times.length ? median(times) : pace * GUESS[preset], jobs: times.length, paced: paces.length > 0 }]));
}
