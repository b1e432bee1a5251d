// The width that a drawing has, so that it is laid out for it and its letters stay readable.

import { useLayoutEffect, useRef, useState } from "../lib/html.js";

/** A ref for the surrounding element, and its width in pixels; 0 before it is known. */
export function useWidth() {
  const element = useRef(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return [element, width];
}
