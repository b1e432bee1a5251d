// One image through a model: posted, waited for, fetched with what its headers tell.

import { Problem, get, send } from "./api.js";
import { ENDED } from "./follow.js";

const FIRST_LOOK_MS = 150;
const LAST_LOOK_MS = 1500;

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => (clearTimeout(timer), reject(new DOMException("Stopped.", "AbortError"))));
});

/** A link of a Link header whose target ends so, or null. */
export function linked(header, ending) {
  const targets = [...(header ?? "").matchAll(/<([^>]+)>/g)].map((match) => match[1]);
  return targets.find((target) => target.split("?")[0].endsWith(ending)) ?? null;
}

/**
 * Restore an image. `onLook` sees the operation each time it is looked at.
 * @param {string} model name, name@alias or name@version
 * @param {Blob} image
 * @param {{format?: string, options?: Record<string, unknown>, onLook?: (operation: any) => void, signal?: AbortSignal}} how
 * @returns {Promise<{blob: Blob, model: string, seconds: number | null, match: string | null, matchScore: number | null, matchSentence: string | null, trust: string | null, precision: string | null}>}
 */
export async function restore(model, image, { format = "image/png", options = {}, onLook, signal } = {}) {
  if (image.size === 0) throw new Problem({ title: "The file is empty", detail: "There is no image in it." });
  const query = new URLSearchParams(Object.entries(options).map(([name, value]) => [name, String(value)]));
  const headers = { "Content-Type": image.type || "application/octet-stream", Accept: format, Prefer: "respond-async" };
  const path = `/v1/models/${encodeURIComponent(model).replaceAll("%40", "@")}/super-resolve${query.size ? `?${query}` : ""}`;
  const accepted = await send(path, { method: "POST", headers, body: image, signal });
  let operation = await accepted.json();
  for (let wait = FIRST_LOOK_MS; !ENDED.has(operation.state); wait = Math.min(LAST_LOOK_MS, 1.5 * wait)) {
    onLook?.(operation);
    await pause(wait, signal);
    operation = await get(`/v1/operations/${operation.id}`, { signal });
  }
  // A failed operation's result is the problem that says why.
  const answer = await send(`/v1/operations/${operation.id}/result`, { signal });
  const told = answer.headers;
  const steps = [...(told.get("Server-Timing") ?? "").matchAll(/dur=([\d.]+)/g)].map(([, milliseconds]) => Number(milliseconds));
  return {
    blob: await answer.blob(),
    model: told.get("X-DRTL-Model") ?? operation.model,
    seconds: steps.length > 0 ? steps.reduce((one, other) => one + other) / 1000 : null,
    match: operation.facts?.match_word ?? null, // Two images of score 0 may be near and far: the word says which.
    matchScore: operation.facts?.match ?? null,
    matchSentence: operation.facts?.match_note ?? null,
    precision: told.get("X-DRTL-Precision"),
    trust: linked(told.get("Link"), "/trust") ?? operation.trust ?? null,
  };
}
