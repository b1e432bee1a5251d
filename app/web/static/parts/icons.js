// A few line icons; each stands beside words or has its button's label.

import { html } from "../lib/html.js";

const icon = (paths) => () =>
  html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${paths.map((d) => html`<path d=${d} />`)}</svg>`;

export const Folder = icon(["M3 7a2 2 0 0 1 2-2h4l2 2.5h8a2 2 0 0 1 2 2V17a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z"]);
export const Picture = icon(["M4 5h16a1 1 0 0 1 1 1v12a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1z", "M3 16l5-5 4 4 3-3 6 6", "M15.5 9.5h.01"]);
export const Blurred = icon(["M4 5h16a1 1 0 0 1 1 1v12a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1z", "M7 10h.01M11 9h.01M15 10h.01M8 14h.01M12 13h.01M16 14h.01M10 16h.01M14 16h.01"]);
export const Download = icon(["M12 4v11", "M7.5 11 12 15.5 16.5 11", "M5 19.5h14"]);
export const Sun = icon(["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4"]);
export const Moon = icon(["M20 14.5A8.5 8.5 0 1 1 9.5 4a6.8 6.8 0 0 0 10.5 10.5z"]);
export const Plus = icon(["M12 5v14M5 12h14"]);
export const Minus = icon(["M5 12h14"]);
export const Fit = icon(["M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"]);
export const Cross = icon(["M6 6l12 12M18 6 6 18"]);
export const Graph = icon(["M12 12 5 6M12 12l8-3M12 12l-2 8", "M12 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z", "M5 4.5a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zM20 7.5a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zM10 18.5a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3z"]);
