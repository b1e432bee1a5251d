// A job as it goes on: its row, and its events as a stream that is replayed from the beginning after a reload.

import { useEffect, useRef, useState } from "./html.js";
import { get } from "./api.js";
import { renewTicket } from "./key.js";

export const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const KINDS = ["started", "progress", "graph", "preview", "requeued", "cancelling", "succeeded", "failed", "cancelled"];
const RETRY_MS = 2000;
const LOOK_AGAIN_MS = 3000;

/** @typedef {{step: number, value: number}[]} Curve */

const nothingYet = () => ({ loss: {}, psnr: {}, inputPsnr: null, preview: null, hasGraph: false, latest: null, requeued: null, pace: null });

/** Add a point to a curve; an attempt that resumed tells some steps again. */
function put(curves, name, step, value) {
  const curve = (curves[name] ??= []);
  while (curve.length && curve.at(-1).step >= step) curve.pop();
  curve.push({ step, value });
}

/** What an event changes in what is known of the job. */
export function learn(known, kind, payload) {
  switch (kind) {
    case "progress":
      known.latest = payload;
      if (payload.steps_per_s) known.pace = payload.steps_per_s;
      if (payload.candidate && Number.isFinite(payload.loss)) put(known.loss, payload.candidate, payload.step, payload.loss);
      break;
    case "preview":
      if (payload.improved || known.preview === null) known.preview = payload;
      known.inputPsnr = payload.input_psnr_db;
      if (Number.isFinite(payload.psnr_db)) put(known.psnr, payload.candidate, payload.step, payload.psnr_db);
      break;
    case "graph":
      known.hasGraph = true;
      break;
    case "requeued":
      known.requeued = payload;
      break;
    case "started":
      known.requeued = null;
      break;
  }
}

/**
 * Follow a job. `connected` is false while the stream is broken and tried again.
 * @param {string} id
 */
export function useJob(id) {
  const [job, setJob] = useState(null);
  const [problem, setProblem] = useState(null);
  const [known, setKnown] = useState(nothingYet);
  const [connected, setConnected] = useState(true);
  const gathered = useRef(nothingYet());

  useEffect(() => {
    let stopped = false;
    let source = null;
    let last = 0;
    let timer = 0;
    let frame = 0;
    gathered.current = nothingYet();
    setJob(null);
    setProblem(null);
    setKnown(nothingYet());

    const readRow = () => get(`/v1/jobs/${id}`).then((row) => {
      if (stopped) return null;
      setJob(row);
      return row;
    });
    // Hundreds of events arrive at once after a reload; the page is drawn once for all of them.
    const show = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setKnown({ ...gathered.current });
      });
    };
    const take = (event) => {
      last = Number(event.lastEventId) || last;
      const { kind, payload } = JSON.parse(event.data);
      learn(gathered.current, kind, payload);
      show();
      if (ENDED.has(kind)) {
        source.close();
        readLastRow();
      } else if (kind === "progress") {
        setJob((row) => row && !ENDED.has(row.state) && { ...row, state: row.state === "queued" ? "running" : row.state, phase: payload.phase, progress: payload.progress, eta_s: payload.eta_s } || row);
      } else if (kind !== "preview") {
        readRow().catch(() => {});
      }
    };
    // No further event would have the row read again, so it is tried until it works.
    const readLastRow = () => readRow().then(
      () => stopped || setConnected(true),
      () => stopped || (setConnected(false), (timer = setTimeout(readLastRow, RETRY_MS))),
    );
    const open = () => {
      source = new EventSource(`/v1/jobs/${id}/events?after=${last}`);
      for (const kind of KINDS) source.addEventListener(kind, take);
      source.onopen = () => setConnected(true);
      source.onerror = () => {
        if (source.readyState !== EventSource.CLOSED) return setConnected(false); // The browser tries again by itself.
        readRow().then(
          (row) => row && (ENDED.has(row.state) ? setConnected(true) : again()),
          () => stopped || (setConnected(false), again()),
        );
      };
    };
    // What broke the stream may be that its ticket has run out.
    const again = () => (timer = setTimeout(() => renewTicket().then(() => stopped || open()), RETRY_MS));

    readRow().then((row) => row && open(), (error) => stopped || setProblem(error));
    return () => {
      stopped = true;
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      source?.close();
    };
  }, [id]);

  // While it waits its place changes by what other jobs do, of which its own events say nothing.
  const queued = job?.state === "queued";
  useEffect(() => {
    if (!queued) return undefined;
    let wanted = true;
    const look = () => get(`/v1/jobs/${id}`).then((row) => wanted && setJob(row), () => {}); // The stream tells of a lost connection.
    const timer = setInterval(look, LOOK_AGAIN_MS);
    return () => {
      wanted = false;
      clearInterval(timer);
    };
  }, [id, queued]);

  return { job, setJob, problem, known, connected };
}
