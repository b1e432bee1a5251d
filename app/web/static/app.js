// The web page: its frame, and which page is shown.

import { html, render, useEffect, useRef, useState } from "./lib/html.js";
import { onKeyNeeded, resumeWithKey } from "./lib/key.js";
import { hasMoved, useRoute } from "./lib/router.js";
import { Moon, Sun } from "./parts/icons.js";
import { KeyPrompt } from "./parts/key_prompt.js";
import { Title } from "./parts/title.js";
import { JobPage } from "./pages/job.js";
import { Jobs } from "./pages/jobs.js";
import { ModelPage } from "./pages/model.js";
import { Models } from "./pages/models.js";
import { Restore } from "./pages/restore.js";
import { Train } from "./pages/train.js";
import { TrainStored } from "./pages/train_stored.js";

const TABS = [
  ["", "Train"],
  ["jobs", "Jobs"],
  ["models", "Models"],
  ["restore", "Restore"],
];

/** @param {import("./lib/router.js").Route} route */
function shown({ parts, query }) {
  const [first, second, third] = parts;
  switch (first) {
    case undefined:
      return query.get("dataset") ? html`<${TrainStored} key=${query.get("dataset")} id=${query.get("dataset")} />` : html`<${Train} />`;
    case "jobs":
      return second ? html`<${JobPage} key=${second} id=${second} />` : html`<${Jobs} />`;
    case "models":
      return second ? html`<${ModelPage} key=${second} name=${second} version=${third} />` : html`<${Models} />`;
    case "restore":
      return html`<${Restore} query=${query} />`;
    default:
      return html`<${Title}>There is no such page<//><p><a href="#/">Go to the beginning</a></p>`;
  }
}

function ThemeSwitch() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const [dark, setDark] = useState(() => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark");
  useEffect(() => {
    const follow = () => document.documentElement.dataset.theme || setDark(system.matches);
    system.addEventListener("change", follow);
    return () => system.removeEventListener("change", follow);
  }, []);
  const toggle = () => {
    const theme = dark ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    setDark(!dark);
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // Then it holds until the page is left.
    }
  };
  return html`<button type="button" class="button icon quiet" aria-label=${dark ? "Use light colours" : "Use dark colours"} title=${dark ? "Light" : "Dark"} onClick=${toggle}>${dark ? html`<${Sun} />` : html`<${Moon} />`}</button>`;
}

function App({ wantsKey }) {
  const route = useRoute();
  const main = useRef(null);
  const [locked, setLocked] = useState(wantsKey);
  useEffect(() => onKeyNeeded(() => setLocked(true)), []);
  useEffect(() => {
    const tab = TABS.find(([name]) => name === (route.parts[0] ?? ""))?.[1];
    document.title = `${[...route.parts.slice(1, 2), tab].filter(Boolean).join(" · ")} · DRTL`;
    if (!hasMoved()) return; // The browser's own focus is right on arrival.
    scrollTo(0, 0);
    main.current.querySelector("h1")?.focus({ preventScroll: true });
  }, [route.path]);
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`
    <a class="skip unseen" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top"><div class="top-in">
      <a class="brand" href="#/"><img src="/web/icon.svg" alt="" width="26" height="26" />DRTL</a>
      <nav class="tabs" aria-label="Pages">
        ${TABS.map(([name, text]) => html`<a key=${name} href=${`#/${name}`} aria-current=${(route.parts[0] ?? "") === name ? "page" : undefined}>${text}</a>`)}
      </nav>
      <div class="end"><${ThemeSwitch} /></div>
    </div></header>
    <main ref=${main} tabindex="-1">${locked ? html`<${KeyPrompt} />` : shown(route)}</main>
    <footer><span>Distortion-relation guided transfer learning</span><a href="/docs">HTTP interface</a></footer>`;
}

// A file that misses its zone must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

const root = document.getElementById("app");
const wantsKey = await resumeWithKey();
root.replaceChildren();
render(html`<${App} wantsKey=${wantsKey} />`, root);
