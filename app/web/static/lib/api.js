// Calls of the service. Whatever fails arrives as a Problem, in words.

import { needKey, withKey } from "./key.js";

/**
 * A failure as RFC 9457 tells it.
 * @typedef {{type?: string, title: string, detail: string, status?: number, pointer?: string,
 *   errors?: {pointer: string, detail: string}[], files?: {name: string, reason: string}[]}} ProblemDocument
 */

export class Problem extends Error {
  /** @param {ProblemDocument} document @param {number} [retryAfter] seconds */
  constructor(document, retryAfter) {
    super(document.detail);
    this.document = document;
    this.retryAfter = retryAfter;
  }

  get kind() {
    return (this.document.type ?? "").split("/").pop();
  }
}

const SILENT = {
  title: "The service does not answer",
  detail: "Nothing came back. Look whether it still runs, then try again; what was accepted before is not lost.",
};

/** @param {number} status @param {string} text @param {string | null} retryAfter */
function problemOf(status, text, retryAfter) {
  if (status === 401) needKey();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    document = null;
  }
  if (!document?.detail) {
    document = { title: "Something went wrong", status, detail: `The service answered with status ${status} and no reason.` };
  }
  return new Problem(document, Number(retryAfter) || undefined);
}

/** Send a request; the answer if it is a good one. @throws {Problem} */
export async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: withKey(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(SILENT);
  }
  if (!answer.ok) throw problemOf(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  return answer;
}

/** @throws {Problem} */
export async function get(path, options = {}) {
  return (await send(path, { headers: { Accept: "application/json" }, ...options })).json();
}

/** @throws {Problem} */
export async function sendJson(method, path, body) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  return (await send(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })).json();
}

/**
 * Upload a form or a file. `fetch` cannot tell how far an upload is, so this is the older way.
 * @param {string} path @param {FormData | Blob} body
 * @param {{headers?: Record<string, string>, onProgress?: (share: number) => void, signal?: AbortSignal}} options
 * @throws {Problem}
 */
export function upload(path, body, { headers = {}, onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(withKey(headers))) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress?.(event.loaded / event.total);
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(problemOf(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new Problem(SILENT));
    request.onabort = () => reject(new DOMException("The upload was stopped.", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** All items of a list, page by page, up to `most`. */
export async function list(path, most = 200) {
  const items = [];
  let after = null;
  do {
    const query = new URLSearchParams({ limit: String(Math.min(100, most)), ...(after ? { after } : {}) });
    const page = await get(`${path}${path.includes("?") ? "&" : "?"}${query}`);
    items.push(...page.items);
    after = page.next;
  } while (after && items.length < most);
  return items;
}
