// One image on its way through a model: how far it is, and its result beside it.

import { html, useEffect, useState } from "../lib/html.js";
import { bytes, duration, fixed, words } from "../lib/format.js";
import { Compare } from "./compare.js";
import { Download } from "./icons.js";
import { Bar, ProblemNote } from "./note.js";

const ENDINGS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/tiff": "tif" };
const SAID = { waiting: "Waiting for its turn …", sending: "Sending the image …", queued: "Waiting for a worker …", running: "Restoring …", cancelling: "Stopping …" };

/** Whether a run is still to end. */
export const isUnderWay = ({ state }) => state in SAID;

/**
 * @param {{file: File, run: any, alone: boolean, onStop: () => void, onAgain: () => void}} props `run` is where the image is;
 *   one that is alone has no heading, and is looked at without a click
 */
export function Restored({ file, run, alone, onStop, onAgain }) {
  return html`
    <li class=${alone ? "stack" : "panel"}>
      ${!alone && html`<h2>${file.name}</h2>`}
      ${isUnderWay(run) && html`<${Working} name=${file.name} run=${run} alone=${alone} onStop=${onStop} />`}
      ${run.state === "stopped" && html`<div class="row between"><p class="soft" role="status">Stopped.</p><button type="button" class="button little" onClick=${onAgain}>Restore it<span class="unseen"> (${file.name})</span></button></div>`}
      ${run.state === "failed" && html`<${ProblemNote} problem=${run.problem}><button type="button" class="button little" onClick=${onAgain}>Try again</button><//>`}
      ${run.state === "done" && html`<${Result} file=${file} result=${run.result} alone=${alone} />`}
    </li>`;
}

function Working({ name, run, alone, onStop }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const seconds = (now - run.since) / 1000;
  return html`
    <div class=${`stack tight ${alone ? "panel" : ""}`} role="status">
      <div class="row between"><span>${SAID[run.state]}</span>${seconds >= 1 && html`<span class="number soft" aria-hidden="true">${duration(seconds)}</span>`}</div>
      ${run.state !== "waiting" && html`<${Bar} share=${run.operation?.progress || null} label=${`Restoring ${name}`} />`}
      <div><button type="button" class="button little" onClick=${onStop}>${run.state === "waiting" ? "Leave out" : "Stop waiting"}<span class="unseen"> (${name})</span></button></div>
    </div>`;
}

function useUrl(blob) {
  const [url, setUrl] = useState(null);
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return url;
}

const sizeOf = (url) => {
  const picture = new Image();
  picture.src = url;
  return picture.decode().then(() => ({ width: picture.naturalWidth, height: picture.naturalHeight }), () => null);
};

/** The sizes of both images, null of one that a browser cannot show; null before they are known. */
function useSizes(before, after) {
  const [sizes, setSizes] = useState(null);
  useEffect(() => {
    if (!before || !after) return undefined;
    let wanted = true;
    setSizes(null);
    Promise.all([sizeOf(before), sizeOf(after)]).then(([input, restored]) => wanted && setSizes({ input, restored }));
    return () => (wanted = false);
  }, [before, after]);
  return sizes;
}

function Result({ file, result, alone }) {
  const before = useUrl(file);
  const after = useUrl(result.blob);
  const [open, setOpen] = useState(alone);
  const sizes = useSizes(open && before, open && after);
  const name = `${file.name.replace(/\.[^.]*$/, "")}-restored.${ENDINGS[result.blob.type] ?? "png"}`;
  return html`
    <div class=${`stack ${alone ? "panel" : ""}`} aria-label=${alone ? "Result" : `Result of ${file.name}`} role="region">
      ${open && sizes && html`<${Look} before=${before} after=${after} sizes=${sizes} result=${result} />`}
      <div class="row between">
        <p class="small soft grow" role="status">Restored by <strong>${result.model}</strong>${result.seconds === null ? "" : ` in ${fixed(result.seconds, 1)} s`}${sizes?.restored ? `, ${sizes.restored.width}×${sizes.restored.height}` : ""}, ${bytes(result.blob.size)}.
          ${result.match !== null && html` Match of the image with what the model was trained on: <strong title=${`Score ${fixed(result.matchScore)} of 1`}>${words(result.match)}</strong>. ${result.matchSentence}`}</p>
        <div class="row tight">
          ${!alone && html`<button type="button" class="button little" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "Close" : "Look"}<span class="unseen"> at ${file.name}</span></button>`}
          ${after && html`<a class=${alone ? "button primary" : "button primary little"} href=${after} download=${name}><${Download} />Download<span class="unseen"> ${name}</span></a>`}
        </div>
      </div>
    </div>`;
}

/** Both images under the slider; where a browser can show only one of them, or none, that with the reason. */
function Look({ before, after, sizes: { input, restored }, result }) {
  const overlay = result.trust && { src: result.trust, alt: "Map of how far the result can be trusted", name: "Trust map", legend: "The brighter, the less the result is to be trusted." };
  if (input && restored) {
    return html`<${Compare} before=${{ src: before, alt: "Your image", tag: "Input" }} after=${{ src: after, alt: "The restored image", tag: "Restored" }} overlay=${overlay} ...${restored} />`;
  }
  const kind = (result.blob.type.split("/")[1] ?? "file").toUpperCase();
  return html`
    ${restored && html`<img class="alone" src=${after} alt="The restored image" />`}
    ${input && html`<img class="alone" src=${before} alt="Your image" />`}
    ${!input && html`<p>A browser cannot show the file that you sent, so it cannot be compared here${restored ? "; above is the result" : ""}.</p>`}
    ${!restored && html`<p>A browser cannot show the ${kind} that came back, but it is there to download. To see the result here, choose PNG as its format and restore again${input ? "; above is what you sent" : ""}.</p>`}`;
}
