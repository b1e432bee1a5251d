// A table that may be wider than its place: it scrolls by itself, by keyboard as well, and the page does not.

import { html } from "../lib/html.js";

export function Scroll({ label, children }) {
  return html`<div class="scroll" role="region" aria-label=${label} tabindex="0">${children}</div>`;
}
