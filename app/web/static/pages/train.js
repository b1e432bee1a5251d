// A new training: pairs in, the service's word on each, a name, a preset, and go.

import { html, useEffect, useRef, useState } from "../lib/html.js";
import { send, upload } from "../lib/api.js";
import { leftOut, merged, modelName, pairUp, sorted } from "../lib/files.js";
import { plural } from "../lib/format.js";
import { Checked } from "../parts/checked.js";
import { DropZone } from "../parts/drop_zone.js";
import { Blurred, Picture } from "../parts/icons.js";
import { Bar, ProblemNote } from "../parts/note.js";
import { Pairs } from "../parts/pairs.js";
import { Start } from "../parts/start.js";
import { Title } from "../parts/title.js";

const IMAGES = ".png,.jpg,.jpeg,.webp,.tif,.tiff,.bmp,.zip";
const SETTLE_MS = 350; // Files for both zones often come one after the other.
const NOTHING = { clean: [], distorted: [], archive: null, lost: 0, unread: [], useless: 0 };

export function Train() {
  const [chosen, setChosen] = useState(NOTHING);
  const [check, setCheck] = useState({ state: "idle" });
  const [name, setName] = useState(null);
  const [suggested, setSuggested] = useState("my-device");
  const [fetchingDemo, setFetchingDemo] = useState(false);
  const demo = useRef(null);
  const stopDemo = () => demo.current?.abort();
  useEffect(() => stopDemo, []);
  // Pairs that the service has looked at have an address, so that a reload or a look at another page loses nothing.
  const stored = check.dataset?.id;
  useEffect(() => {
    if (stored || location.hash.includes("?")) history.replaceState(history.state, "", stored ? `#/?dataset=${stored}` : "#/");
  }, [stored]);

  const take = (side) => (found) => {
    stopDemo(); // Late demo pairs must not replace the visitor's own.
    const { archive, clean, distorted, folder, lost, unread, useless } = sorted(found, side);
    if (folder || archive) setSuggested(modelName(archive?.name ?? folder));
    setCheck({ state: "idle" });
    if (archive) return setChosen({ ...NOTHING, archive });
    setChosen((before) => ({
      clean: merged(before.clean, clean),
      distorted: merged(before.distorted, distorted),
      archive: clean.length + distorted.length > 0 ? null : before.archive, // A drop that brings nothing takes nothing away.
      lost,
      unread,
      useless,
    }));
  };
  const remove = (pair) => {
    setCheck({ state: "idle" });
    setChosen((before) => {
      const left = pairUp(before.clean, before.distorted).filter((each) => each.name !== pair);
      return { ...before, clean: left.map((each) => each.clean).filter(Boolean), distorted: left.map((each) => each.distorted).filter(Boolean) };
    });
  };
  const startOver = () => (stopDemo(), setChosen(NOTHING), setCheck({ state: "idle" }));
  const takeDemo = async () => {
    demo.current = new AbortController();
    setFetchingDemo(true);
    try {
      const blob = await (await send("/demo/pairs.zip", { signal: demo.current.signal })).blob();
      setSuggested("virtual-camera");
      setCheck({ state: "idle" });
      setChosen({ ...NOTHING, archive: new File([blob], "virtual-camera.zip", { type: "application/zip" }) });
    } catch (problem) {
      if (problem.name !== "AbortError") setCheck({ state: "failed", problem });
    } finally {
      setFetchingDemo(false);
    }
  };

  const pairs = chosen.archive ? null : pairUp(chosen.clean, chosen.distorted);
  const doubles = pairs ? leftOut([...chosen.clean, ...chosen.distorted], pairs) : 0;
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
        <p class="small soft grow">3 to 30 pairs are plenty, as PNG, JPEG, WebP, TIFF or BMP. Equal names make a pair. One folder or zip with <code>clean/</code> and <code>distorted/</code> in it may go into either place.</p>
        ${started
          ? html`<button type="button" class="button little" onClick=${startOver}>Start over</button>`
          : html`<button type="button" class="button little" disabled=${fetchingDemo} onClick=${takeDemo}>${fetchingDemo ? "Making demo pairs …" : "Try with demo pairs"}</button>`}
      </div>
    </section>
    ${chosen.lost > 0 && html`
      <div class="note warn" role="status"><p>${plural(chosen.lost, "image")} could not be told to be clean or distorted. Name the folders
        <code>clean</code> and <code>distorted</code>, or drop each folder into its own place.</p></div>`}
    ${chosen.unread.length > 0 && html`
      <div class="note warn" role="status"><p>${plural(chosen.unread.length, "file")} left out, of a format that the service does not read: ${few(chosen.unread)}.
        Convert to PNG, TIFF or JPEG first.</p></div>`}
    ${chosen.useless > 0 && html`
      <div class="note warn" role="status"><p>${plural(chosen.useless, "file")} given, none of them an image or a zip that can be read here.</p></div>`}
    ${doubles > 0 && html`
      <div class="note warn" role="status"><p>${plural(doubles, "image")} left out: another one on the same side has the same name. Give each its own.</p></div>`}
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

const few = (names) => (names.length > 3 ? `${names.slice(0, 3).join(", ")} …` : names.join(", "));

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
    const fixable = [...new Set(check.dataset.pairs.flatMap(({ findings = [] }) => findings.map(({ fix }) => fix).filter(Boolean)))];
    return html`<${Checked} dataset=${check.dataset} fixes=${check.fixes}>
      ${fixable.length > 0 && check.fixes.length === 0 && html`<button type="button" class="button" onClick=${() => onFix(fixable)}>Apply fixes</button>`}<//>`;
  }
  if (!whole && pairs) {
    const alone = pairs.filter((pair) => !pair.clean || !pair.distorted).length;
    return html`<div role="status"><h2>${plural(pairs.length - alone, "pair")}, ${alone} without a partner</h2>
      <p class="small soft">A pair needs a clean and a distorted image of the same name. Add the missing ones, or remove the rest.</p></div>`;
  }
  return null;
}
