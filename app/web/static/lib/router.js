// Where in the page one is: the part of the address behind the #, so that a reload comes back to it.

import { useEffect, useState } from "./html.js";

/** @typedef {{parts: string[], query: URLSearchParams, path: string}} Route */

/** The parts of a path; of one that is malformed, such as /models/100%, one part that is no page's. */
function partsOf(path) {
  try {
    return path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return [path];
  }
}

/** @returns {Route} */
export function currentRoute() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { parts: partsOf(path), query: new URLSearchParams(query), path };
}

let moved = false;

/** Whether the visitor has gone from one page to another since the arrival. */
export const hasMoved = () => moved;

export function useRoute() {
  const [route, setRoute] = useState(currentRoute);
  useEffect(() => {
    const follow = () => {
      moved = true;
      setRoute(currentRoute());
    };
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}

export function go(path) {
  location.hash = path;
}
