// Pairs as rows: both images, what the service measured, and what it says about them.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { send } from "../lib/api.js";
import { decibels, fixed, words } from "../lib/format.js";
import { VerdictBadge } from "./badge.js";
import { Cross } from "./icons.js";

const SHIFT_TOLD_PX = 0.25; // Less is as good as aligned, and not worth a word.
const GAIN_TOLD_DB = 0.1;

export const pairImage = (dataset, position, side, most) =>
  `/v1/datasets/${dataset}/pairs/${position}/${side}${most ? `?max_side=${most}` : ""}`;

/**
 * An image of a pair: the visitor's own file, or the service's copy where the browser cannot show the file (TIFF). `onMissing`
 * hears of a copy that cannot be shown either.
 */
function Thumb({ file, stored, label, onMissing }) {
  const [own, setOwn] = useState(null);
  const [broken, setBroken] = useState(null);
  useEffect(() => {
    if (!file) return undefined;
    const url = URL.createObjectURL(file);
    setOwn(url);
    return () => URL.revokeObjectURL(url);
  }, [file]);
  const shown = own ?? stored;
  if (!file && !stored) return html`<div class="thumb missing">no ${label}</div>`;
  if (!shown || shown === broken) return html`<div class="thumb">${label}</div>`;
  const fail = () => {
    if (shown === own) return setOwn(null);
    setBroken(stored);
    onMissing(stored);
  };
  return html`<div class="thumb"><img src=${shown} alt=${label} loading="lazy" onError=${fail} /></div>`;
}

/** What is told of an image of a pair that the service does not give, by what it says instead. */
const missing = (label, problem) => (problem?.kind === "file-lost" ? `The service has lost the ${label} image.` : `The ${label} image cannot be shown.`);

/** Both images of a pair, with a sentence for each that is not there. */
function Thumbs({ files, stored, children }) {
  const [told, setTold] = useState({});
  const ask = (label) => (address) => {
    const tell = (problem) => setTold((before) => ({ ...before, [label]: missing(label, problem) }));
    send(address).then(() => tell(null), tell); // An image that fails says nothing of the reason.
  };
  return html`
    <div class="thumbs">
      ${["clean", "distorted"].map((label) => html`<${Thumb} key=${label} file=${files?.[label]} stored=${stored(label)} label=${label} onMissing=${ask(label)} />`)}
    </div>
    <div>
      ${children}
      ${Object.entries(told).map(([label, sentence]) => html`<p key=${label} class="small wrong">${sentence}</p>`)}
    </div>`;
}

/** What mending did to a measure. Swapping sides, for one, never changes how far they differ. */
const change = (before, now) => (before === now ? `${now}, as before` : `${before} before, ${now} now`);

/** Whatever the report has to say: its sentence, or its findings one by one. */
function Report({ report }) {
  const findings = report.findings ?? [];
  const shift = report.shift_px && Math.hypot(report.shift_px.x, report.shift_px.y) >= SHIFT_TOLD_PX ? `, shifted by ${fixed(report.shift_px.x, 1)}, ${fixed(report.shift_px.y, 1)} px` : "";
  const aligned = report.aligned_psnr_db - report.psnr_db >= GAIN_TOLD_DB ? `, ${decibels(report.aligned_psnr_db)} once aligned` : "";
  return html`
    <p class="small soft number">
      ${report.clean.width}×${report.clean.height}${report.scale > 1 ? `, scale ${report.scale}` : ""},
      ${" "}${report.psnr_db === null ? "equal images" : decibels(report.psnr_db)}${aligned}${shift}
    </p>
    ${report.fixed && html`<p class="small number">Mended (${report.fixed.applied.map(words).join(", ")}): ${change(decibels(report.fixed.before.psnr_db), decibels(report.psnr_db))}.</p>`}
    ${findings.length === 0
      ? html`<p class="small">${report.note}</p>`
      : html`<ul class="findings small">
          ${findings.map((finding) => html`<li key=${finding.code}>${finding.sentence}${finding.fix ? html` <span class="soft">Can be fixed: ${words(finding.fix)}.</span>` : ""}</li>`)}
        </ul>`}`;
}

/**
 * @param {{pairs: import("../lib/files.js").PairOfFiles[] | null, dataset: any, onRemove?: (name: string) => void}} props
 *   `dataset` is the service's report, once there is one; `pairs` are the files, where they did not come in a zip.
 */
export function Pairs({ pairs, dataset, onRemove }) {
  const rows = dataset
    ? dataset.pairs.map((report, position) => ({ name: report.name, report, position, files: pairs?.find(({ name }) => name === report.name) }))
    : pairs.map((files) => ({ name: files.name, report: null, position: 0, files }));
  // The button of a row that goes hands the focus to its neighbour's, which is there still once the rows are drawn anew.
  const heir = useRef(null);
  useLayoutEffect(() => {
    heir.current?.focus();
    heir.current = null;
  });
  const remove = (event, name) => {
    const row = event.currentTarget.closest("li");
    heir.current = (row.nextElementSibling ?? row.previousElementSibling)?.querySelector("button") ?? null;
    onRemove(name);
  };
  return html`
    <ul class="pairs" aria-label="Pairs">
      ${rows.map(({ name, report, position, files }) => {
        const stored = (side) => (dataset ? pairImage(dataset.id, position, side, 160) : null);
        return html`
          <li class="pair" key=${name}>
            <${Thumbs} files=${files} stored=${stored}>
              <div class="row tight"><strong>${name}</strong>${report && html`<${VerdictBadge} verdict=${report.verdict} />`}</div>
              ${report && html`<${Report} report=${report} />`}
              ${!report && !files.clean && html`<p class="small wrong">There is no clean image of this name.</p>`}
              ${!report && !files.distorted && html`<p class="small wrong">There is no distorted image of this name.</p>`}
            <//>
            ${onRemove && html`<button type="button" class="button icon little quiet" aria-label=${`Remove pair ${name}`} title="Remove" onClick=${(event) => remove(event, name)}><${Cross} /></button>`}
          </li>`;
      })}
    </ul>`;
}
