// How a training starts: name, preset with its time, further options, and the button.

import { html, useEffect, useId, useState } from "../lib/html.js";
import { list, sendJson } from "../lib/api.js";
import { estimates } from "../lib/estimate.js";
import { about, plural } from "../lib/format.js";
import { go } from "../lib/router.js";
import { useService } from "../lib/service.js";
import { isUsable } from "./badge.js";
import { ProblemNote } from "./note.js";
import { Option } from "./options.js";

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
const PRESETS = {
  draft: "Fits what is known to your pairs: most of the gain in a fraction of the time.",
  quick: "Enough for most devices, and for a first look.",
  standard: "Longer, for the last tenths of a decibel.",
  paper: "The paper's own schedule; wants a GPU.",
};

/** Why the pairs are not to be trained on as they are, with what to do about it; null where they may be. */
function rejection({ pairs }) {
  const bad = pairs.filter(({ verdict }) => !isUsable(verdict)).length;
  if (bad === 0) return null;
  const allowed = "tick “Allow rejects” under Further options to train on them anyway";
  if (bad === pairs.length) return `None of the pairs can be trained on. Choose others, or ${allowed}.`;
  return `${bad} of ${plural(pairs.length, "pair")} cannot be trained on. Leave ${bad === 1 ? "it" : "them"} out, or ${allowed}.`;
}

/** @param {{dataset: any, name: string, setName: (name: string) => void}} props `dataset` is null until the pairs are checked. */
export function Start({ dataset, name, setName }) {
  const service = useService();
  const [times, setTimes] = useState(null);
  const [taken, setTaken] = useState(new Set());
  const [preset, setPreset] = useState("quick");
  const [options, setOptions] = useState({});
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState(null);
  const field = useId();

  const lookWhatIsTaken = () => list("/v1/models", 1000).then((models) => setTaken(new Set(models.map((model) => model.name))), () => {});
  useEffect(() => {
    estimates().then(setTimes, () => setTimes(null));
    lookWhatIsTaken();
  }, []);

  const wellFormed = NAME.test(name);
  const exists = taken.has(name);
  const rejected = dataset && !options.allow_rejects ? rejection(dataset) : null;
  const ready = dataset && wellFormed && !rejected && !sending;
  const start = async (event) => {
    event.preventDefault();
    if (!ready) return;
    setSending(true);
    setProblem(null);
    try {
      const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
      const job = await sendJson("POST", "/v1/jobs", { ...given, dataset_id: dataset.id, name, preset });
      go(`/jobs/${job.id}`);
    } catch (failure) {
      if (failure.kind === "name-taken") await lookWhatIsTaken(); // Then the box that adds a version is there.
      setProblem(failure);
      setSending(false);
    }
  };
  const time = (each) => {
    const known = times?.[each];
    if (!known) return "";
    if (known.jobs) return `${about(known.seconds)}, as ${known.jobs === 1 ? "a job" : `${known.jobs} jobs`} here took`;
    return `${about(known.seconds)} ${known.paced ? "by this machine's pace" : "on two CPU cores"}, a rough estimate`;
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
          <label class="check small"><input type="checkbox" checked=${options.new_version ?? false} onChange=${(event) => setOptions({ ...options, new_version: event.currentTarget.checked })} />
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
        <details onInvalidCapture=${(event) => (event.currentTarget.open = true)}>
          <summary>Further options</summary>
          <div class="stack">
            ${service.jobOptions.map((option) => html`<${Option} key=${option.name} option=${option} value=${options[option.name]} onChange=${(value) => setOptions({ ...options, [option.name]: value })} />`)}
          </div>
        </details>`}
      <div class="pinned">
        ${problem?.kind === "name-taken" && exists && !options.new_version
          ? html`<div class="note bad" role="alert"><p>A model of this name exists. Choose another name, or tick the box below the name to add a new version.</p></div>`
          : html`<${ProblemNote} problem=${problem} />`}
        <button type="submit" class="button primary wide" disabled=${!ready} aria-describedby=${`${field}-why`}>${sending ? "Starting …" : "Start training"}</button>
        <p class="hint" id=${`${field}-why`} role="status">${dataset ? rejected : "You can start as soon as the pairs are checked."}</p>
      </div>
    </form>`;
}
