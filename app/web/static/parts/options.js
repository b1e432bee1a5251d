// Fields for a job's further options, made from what the service says about them.

import { html, useId, useState } from "../lib/html.js";
import { words } from "../lib/format.js";

const NUMERIC = new Set(["integer", "number"]);

/** The value of a field as JSON has it; undefined leaves the option to the service. */
function typed(option, text) {
  if (text === "") return undefined;
  if (NUMERIC.has(option.type) || typeof option.values?.[0] === "number") return Number(text);
  return text;
}

/** A description as it stands in the interface, without what only a program has to know. */
const readable = (description) => description.replaceAll("`", "").replace(/\s*Null: [^.]*\./, "").trim();

export function Option({ option, value, onChange }) {
  const id = useId();
  const [text, setText] = useState(null);
  const told = readable(option.description ?? "");
  const hint = told && html`<p class="hint" id=${`${id}-hint`}>${told}</p>`;
  const described = told ? { "aria-describedby": `${id}-hint` } : {};
  const label = words(option.name).replace(/^./, (letter) => letter.toUpperCase());
  if (option.type === "boolean") {
    return html`
      <div class="check">
        <input type="checkbox" id=${id} checked=${value ?? option.preset ?? false} onChange=${(event) => onChange(event.currentTarget.checked)} ...${described} />
        <div><label for=${id}>${label}</label>${hint}</div>
      </div>`;
  }
  const change = (event) => onChange(typed(option, event.currentTarget.value));
  const initial = option.preset ?? "";
  // A number on its way, such as "0." of "0.05", is not yet what its value would be written as, so what was typed stands.
  const written = text !== null && typed(option, text) === value ? text : (value ?? initial);
  const type = (event) => (setText(event.currentTarget.value), change(event));
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      ${option.values
        ? html`<select id=${id} value=${value ?? initial} onChange=${change} ...${described}>
            ${option.nullable && html`<option value="">chosen for you</option>`}
            ${option.values.map((choice) => html`<option key=${choice} value=${choice}>${choice}</option>`)}
          </select>`
        : html`<input type=${NUMERIC.has(option.type) ? "number" : "text"} id=${id} value=${written} min=${option.minimum} max=${option.maximum}
            step=${option.type === "number" ? "any" : undefined} placeholder=${option.nullable ? "chosen for you" : initial} onInput=${type} ...${described} />`}
      ${hint}
    </div>`;
}
