// Markup as tagged templates (htm) for Preact, and Preact's hooks, from one place.

import { Fragment, h, render } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export { Fragment, render };
export { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.mjs";

export const html = htm.bind(function element(type, props, ...children) {
  this[0] = 3; // htm shall not keep static elements: one kept element may stand in the page only once.
  return h(type, props, ...children);
});
