// A page's heading, which takes the focus when one comes to the page, so that a screen reader says where one is.

import { html, useEffect, useRef } from "../lib/html.js";
import { hasMoved } from "../lib/router.js";

export function Title({ children }) {
  const heading = useRef(null);
  useEffect(() => {
    // Where the heading of a page that was loading held the focus, its successor takes it over.
    if (hasMoved() && document.activeElement === document.body) heading.current.focus({ preventScroll: true });
  }, []);
  return html`<h1 ref=${heading} tabindex="-1">${children}</h1>`;
}
