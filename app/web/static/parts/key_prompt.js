// Asks for the key of a locked service.

import { html, useState } from "../lib/html.js";
import { useKey } from "../lib/key.js";
import { Title } from "./title.js";

export function KeyPrompt() {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    try {
      if (await useKey(new FormData(event.target).get("key").trim())) return location.reload();
      setProblem("The service does not take this key. It may be revoked, expired or incomplete.");
    } catch {
      setProblem("The service does not answer. Try again.");
    }
    setBusy(false);
  };
  return html`
    <${Title}>This service needs a key<//>
    <form class="panel stack" onSubmit=${submit}>
      <div class="field">
        <label for="key">API key</label>
        <input id="key" name="key" type="password" autocomplete="off" spellcheck=${false} placeholder="drtl_…" required />
      </div>
      <p class="small soft">Whoever runs the service makes one with <code>drtl keys create</code>. It is kept until this tab is closed.</p>
      ${problem && html`<p class="wrong" role="alert">${problem}</p>`}
      <div class="row"><button class="button primary" disabled=${busy}>Use this key</button></div>
    </form>`;
}
