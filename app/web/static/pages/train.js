// A new training: pairs in, the service's word on each, a name, a preset, and go.

import { html, useEffect, useId, useRef, useState } from "../lib/html.js";
import { list, send, sendJson, upload } from "../lib/api.js";
import { estimates } from "../lib/estimate.js";
import { merged, modelName, pairUp, sorted } from "../lib/files.js";
import { about, plural } from "../lib/format.js";
import { go } from "../lib/router.js";
import { useService } from "../lib/service.js";
import { isUsable } from "../parts/badge.js";
import { DropZone } from "../parts/drop_zone.js";
import { Blurred, Picture } from "../parts/icons.js";
import { Bar, ProblemNote } from "../parts/note.js";
import { Option } from "../parts/options.js";
import { Pairs } from "../parts/pairs.js";
import { Title } from "../parts/title.js";

const IMAGES = ".png,.jpg,.jpeg,.webp,.tif,.tiff,.bmp,.zip";
const SETTLE_MS = 350; // Files for both zones often come one after the other.
const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
const PRESETS = {
  draft: "Fits what is known to your pairs: most of the gain in a fraction of the time.",
  quick: "Enough for most devices, and for a first look.",
  standard: "Longer, for the last tenths of a decibel.",
  paper: "The paper's own schedule; wants a GPU.",
};
const NOTHING = { clean: [], distorted: [], archive: null, lost: 0 };

export function Train() {
  const [chosen, setChosen] = useState(NOTHING);
  const [check, setCheck] = useState({ state: "idle" });
  const [name, setName] = useState(null);
  const [suggested, setSuggested] = useState("my-device");
  const [fetchingDemo, setFetchingDemo] = useState(false);

  const take = (side) => (found) => {
    const { archive, clean, distorted, folder, lost } = sorted(found, side);
    if (folder || archive) setSuggested(modelName(archive?.name ?? folder));
    setCheck({ state: "idle" });
    if (archive) return setChosen({ ...NOTHING, archive });
    setChosen((before) => ({ clean: merged(before.clean, clean), distorted: merged(before.distorted, distorted), archive: null, lost }));
  };
  const remove = (pair) => {
    setCheck({ state: "idle" });
    setChosen((before) => {
      const left = pairUp(before.clean, before.distorted).filter((each) => each.name !== pair);
      return { ...before, clean: left.map((each) => each.clean).filter(Boolean), distorted: left.map((each) => each.distorted).filter(Boolean) };
    });
  };
  const startOver = () => (setChosen(NOTHING), setCheck({ state: "idle" }));
  const takeDemo = async () => {
    setFetchingDemo(true);
    try {
      const blob = await (await send("/demo/pairs.zip")).blob();
      setSuggested("virtual-camera");
      setCheck({ state: "idle" });
      setChosen({ ...NOTHING, archive: new File([blob], "virtual-camera.zip", { type: "application/zip" }) });
    } catch (problem) {
      setCheck({ state: "failed", problem });
    } finally {
      setFetchingDemo(false);
    }
  };

  const pairs = chosen.archive ? null : pairUp(chosen.clean, chosen.distorted);
  const whole = chosen.archive !== null || (pairs.length > 0 && pairs.every((pair) => pair.clean && pair.distorted));
  const uploading = useRef(null);
  const stopUpload = () => uploading.current?.abort();
  const look = (fixes = []) => {
    stopUpload();
    uploading.current = new AbortController();
    uploadPairs(chosen, pairs, fixes, setCheck, uploading.current.signal);
  };
  // The pairs are looked at a moment after the last change, once each has its partner.
  useEffect(() => {
    const timer = whole ? setTimeout(look, SETTLE_MS) : 0;
    return () => (clearTimeout(timer), stopUpload());
  }, [chosen]);

  const started = chosen.archive || pairs.length > 0;
  const filled = (side) => (chosen.archive ? `${chosen.archive.name}` : chosen[side].length ? plural(chosen[side].length, "image") : undefined);
  return html`
    <header>
      <${Title}>Teach it how your device spoils images<//>
      <p class="lead">Give a handful of pairs: what your camera, scanner or microscope made of a scene, and the same scene clean.
        Minutes later there is a model that restores every further image, measured on pairs that it never saw.</p>
    </header>
    <section aria-label="Your pairs" class="stack">
      <div class="zones">
        <${DropZone} label="Distorted images" icon=${Blurred} accept=${IMAGES} multiple folders filled=${filled("distorted")} onFiles=${take("distorted")}
          hint="What the device makes. Drop files or a folder here." />
        <${DropZone} label="Clean images" icon=${Picture} accept=${IMAGES} multiple folders filled=${filled("clean")} onFiles=${take("clean")}
          hint="The same scenes, good. Drop files or a folder here." />
      </div>
      <div class="row between">
        <p class="small soft grow">3 to 30 pairs are plenty. Equal names make a pair. One folder or zip with <code>clean/</code> and <code>distorted/</code> in it may go into either place.</p>
        ${started
          ? html`<button type="button" class="button little" onClick=${startOver}>Start over</button>`
          : html`<button type="button" class="button little" disabled=${fetchingDemo} onClick=${takeDemo}>${fetchingDemo ? "Making demo pairs …" : "Try with demo pairs"}</button>`}
      </div>
    </section>
    ${chosen.lost > 0 && html`
      <div class="note warn" role="status"><p>${plural(chosen.lost, "image")} could not be told to be clean or distorted. Name the folders
        <code>clean</code> and <code>distorted</code>, or drop each folder into its own place.</p></div>`}
    ${check.state === "failed" && html`<${ProblemNote} problem=${check.problem}>
        ${whole && html`<button type="button" class="button little" onClick=${() => look()}>Check again</button>`}
        <button type="button" class="button little" onClick=${startOver}>Start over</button>
      <//>`}
    ${started && html`
      <div class="with-side">
        <section class="stack" aria-label="Check of the pairs">
          <${Checking} check=${check} pairs=${pairs} whole=${whole} onFix=${look} />
          ${(pairs || check.dataset) && html`<${Pairs} pairs=${pairs} dataset=${check.dataset ?? null} onRemove=${pairs && remove} />`}
        </section>
        <aside><${Start} dataset=${check.dataset ?? null} name=${name ?? suggested} setName=${setName} /></aside>
      </div>`}`;
}

/** Send the pairs to be looked at, mended by `fixes`; `setCheck` hears how it goes. */
async function uploadPairs(chosen, pairs, fixes, setCheck, signal) {
  const path = `/v1/datasets${fixes.length ? `?fix=${fixes.join(",")}` : ""}`;
  const onProgress = (share) => setCheck({ state: share < 1 ? "uploading" : "looking", share });
  setCheck({ state: "uploading", share: 0 });
  try {
    let dataset;
    if (chosen.archive) {
      dataset = await upload(path, chosen.archive, { headers: { "Content-Type": "application/zip" }, onProgress, signal });
    } else {
      const form = new FormData();
      for (const { clean, distorted } of pairs) {
        form.append("clean", clean, clean.name);
        form.append("distorted", distorted, distorted.name);
      }
      dataset = await upload(path, form, { onProgress, signal });
    }
    setCheck({ state: "done", dataset, fixes });
  } catch (problem) {
    if (problem.name !== "AbortError") setCheck({ state: "failed", problem });
  }
}

/** The service's summary without what to send for a fix, which is a button here. */
const inWords = (summary = "") => summary.replace(/[^.]*\bfix=\S*/, "").trim();

/** How the check goes, and what it found, in a line. */
function Checking({ check, pairs, whole, onFix }) {
  if (check.state === "uploading" || check.state === "looking") {
    return html`
      <div class="stack tight" role="status">
        <p>${check.state === "uploading" ? "Uploading the pairs …" : "Looking at every pair …"}</p>
        <${Bar} share=${check.state === "uploading" ? check.share : null} label="Upload of the pairs" />
      </div>`;
  }
  if (check.state === "done") {
    const reports = check.dataset.pairs;
    const bad = reports.filter(({ verdict }) => !isUsable(verdict)).length;
    const fixable = [...new Set(reports.flatMap(({ findings = [] }) => findings.map(({ fix }) => fix).filter(Boolean)))];
    return html`
      <div class="row between" role="status">
        <div>
          <h2>${plural(reports.length, "pair")} checked</h2>
          <p class="small soft">${inWords(check.dataset.summary) || (bad === 0 ? "All of them can be trained on." : `${bad} of them will hurt the training: replace or remove what is marked red.`)}
            ${check.fixes.length > 0 ? ` Applied: ${check.fixes.join(", ").replaceAll("_", " ")}.` : ""}</p>
        </div>
        ${fixable.length > 0 && check.fixes.length === 0 && html`<button type="button" class="button" onClick=${() => onFix(fixable)}>Apply fixes</button>`}
      </div>`;
  }
  if (!whole && pairs) {
    const alone = pairs.filter((pair) => !pair.clean || !pair.distorted).length;
    return html`<div role="status"><h2>${plural(pairs.length - alone, "pair")}, ${alone} without a partner</h2>
      <p class="small soft">A pair needs a clean and a distorted image of the same name. Add the missing ones, or remove the rest.</p></div>`;
  }
  return null;
}

/** Name, preset with its time, further options, and the button. */
function Start({ dataset, name, setName }) {
  const service = useService();
  const [times, setTimes] = useState(null);
  const [taken, setTaken] = useState(new Set());
  const [preset, setPreset] = useState("quick");
  const [options, setOptions] = useState({});
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState(null);
  const field = useId();

  useEffect(() => {
    estimates().then(setTimes, () => setTimes(null));
    list("/v1/models", 1000).then((models) => setTaken(new Set(models.map((model) => model.name))), () => {});
  }, []);

  const wellFormed = NAME.test(name);
  const exists = taken.has(name) && !options.new_version;
  const start = async (event) => {
    event.preventDefault();
    if (!dataset || !wellFormed || sending) return;
    setSending(true);
    setProblem(null);
    try {
      const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
      const job = await sendJson("POST", "/v1/jobs", { ...given, dataset_id: dataset.id, name, preset });
      go(`/jobs/${job.id}`);
    } catch (failure) {
      setProblem(failure);
      setSending(false);
    }
  };
  const time = (each) => {
    const known = times?.[each];
    if (!known) return "";
    return `${about(known.seconds)}${known.jobs ? `, as ${known.jobs === 1 ? "a job" : `${known.jobs} jobs`} here took` : " on two CPU cores, a rough estimate"}`;
  };
  return html`
    <form class="panel" onSubmit=${start} aria-label="Start the training">
      <h2>Train</h2>
      <div class="field">
        <label for=${field}>Name of the model</label>
        <input type="text" id=${field} value=${name} spellcheck=${false} autocomplete="off" aria-invalid=${!wellFormed} aria-describedby=${`${field}-hint`} onInput=${(event) => setName(event.currentTarget.value)} />
        <p id=${`${field}-hint`} class=${wellFormed ? "hint" : "wrong"}>
          ${!wellFormed ? "Lower-case letters, digits, dots, hyphens and underscores; a letter or a digit first."
            : exists ? "" : "What you will call it by, for instance your device's name."}
        </p>
        ${wellFormed && exists && html`
          <label class="check small"><input type="checkbox" checked=${false} onChange=${() => setOptions({ ...options, new_version: true })} />
            <span>A model of this name exists. Add a new version to it.</span></label>`}
      </div>
      <fieldset class="stack tight">
        <legend>How long to train</legend>
        ${(service?.presets ?? ["quick"]).map((each) => html`
          <label class="choice" key=${each}>
            <input type="radio" name="preset" value=${each} checked=${preset === each} onChange=${() => setPreset(each)} />
            <span><strong>${each}</strong> <span class="soft small">${time(each)}</span><br /><span class="small soft">${PRESETS[each] ?? ""}</span></span>
          </label>`)}
      </fieldset>
      ${service && html`
        <details>
          <summary>Further options</summary>
          <div class="stack">
            ${service.jobOptions.map((option) => html`<${Option} key=${option.name} option=${option} value=${options[option.name]} onChange=${(value) => setOptions({ ...options, [option.name]: value })} />`)}
          </div>
        </details>`}
      <div class="pinned">
        <${ProblemNote} problem=${problem} />
        <button type="submit" class="button primary wide" disabled=${!dataset || !wellFormed || sending}>${sending ? "Starting …" : "Start training"}</button>
        ${!dataset && html`<p class="hint">You can start as soon as the pairs are checked.</p>`}
      </div>
    </form>`;
}
