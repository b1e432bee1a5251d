// Before and after under a slider, with zoom and pan, and an overlay where there is one.

import { html, useEffect, useId, useRef, useState } from "../lib/html.js";
import { Fit, Minus, Plus } from "./icons.js";

const MOST_ZOOM = 16;
const STEP = 1.5;
const PAN_PX = 60;

/** The view: `zoom` ≥ 1, and the picture's corner in pixels of the stage, so that no edge leaves its border. */
function bounded({ zoom, x, y }, stage) {
  const most = Math.min(MOST_ZOOM, Math.max(1, zoom));
  const { clientWidth: width, clientHeight: height } = stage;
  const within = (value, size) => Math.min(0, Math.max(size - size * most, value));
  return { zoom: most, x: within(x, width), y: within(y, height) };
}

/**
 * @param {{before: {src: string, alt: string, tag: string}, after: {src: string, alt: string, tag: string},
 *   overlay?: {src: string, alt: string, name: string, legend: string} | null, width?: number, height?: number}} props
 */
export function Compare({ before, after, overlay = null, width, height }) {
  const [split, setSplit] = useState(50);
  const [view, setView] = useState({ zoom: 1, x: 0, y: 0 });
  const [shaded, setShaded] = useState(false);
  const stage = useRef(null);
  const drag = useRef(null);
  const help = useId();

  useEffect(() => setView({ zoom: 1, x: 0, y: 0 }), [before.src, after.src]);
  /** Zoom by a factor, keeping a point of the stage where it is. */
  const zoomBy = (factor, at = null) => setView((old) => {
    const { clientWidth, clientHeight } = stage.current;
    const [px, py] = at ?? [clientWidth / 2, clientHeight / 2];
    const zoom = Math.min(MOST_ZOOM, Math.max(1, old.zoom * factor));
    const share = zoom / old.zoom;
    return bounded({ zoom, x: px - (px - old.x) * share, y: py - (py - old.y) * share }, stage.current);
  });
  const panBy = (dx, dy) => setView((old) => bounded({ ...old, x: old.x + dx, y: old.y + dy }, stage.current));
  const fit = () => setView({ zoom: 1, x: 0, y: 0 });

  useEffect(() => {
    // Not through a property, since a listener must be active to keep the page from scrolling.
    const wheel = (event) => {
      if (!event.ctrlKey && !event.metaKey && stage.current.dataset.zoomed === undefined) return;
      event.preventDefault();
      const box = stage.current.getBoundingClientRect();
      zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, [event.clientX - box.left, event.clientY - box.top]);
    };
    const element = stage.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);

  const keys = {
    "+": () => zoomBy(STEP), "=": () => zoomBy(STEP), "-": () => zoomBy(1 / STEP), 0: fit,
    w: () => panBy(0, PAN_PX), s: () => panBy(0, -PAN_PX), a: () => panBy(PAN_PX, 0), d: () => panBy(-PAN_PX, 0),
  };
  const pointer = {
    onPointerDown: (event) => {
      if (view.zoom === 1 || event.button !== 0) return;
      drag.current = [event.clientX, event.clientY];
      event.currentTarget.setPointerCapture(event.pointerId);
    },
    onPointerMove: (event) => {
      if (!drag.current) return;
      panBy(event.clientX - drag.current[0], event.clientY - drag.current[1]);
      drag.current = [event.clientX, event.clientY];
    },
    onPointerUp: () => (drag.current = null),
    onPointerCancel: () => (drag.current = null),
    onDblClick: (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      zoomBy(2, [event.clientX - box.left, event.clientY - box.top]);
    },
  };
  const zoomed = view.zoom > 1;
  // Where the divider is on the stage, as a share of the picture, which the zoom may have moved.
  const cut = stage.current ? (stage.current.clientWidth * split - 100 * view.x) / (stage.current.clientWidth * view.zoom) : split;
  const moved = { transform: `translate(${view.x}px, ${view.y}px) scale(${view.zoom})` };
  const shape = width && height ? { aspectRatio: `${width} / ${height}` } : {};
  return html`
    <div class="compare">
      <div ref=${stage} class=${`stage ${zoomed ? "zoomed" : ""} ${view.zoom > 2 ? "large" : ""}`} data-zoomed=${zoomed ? "" : undefined} ...${pointer}>
        <div class="picture" style=${{ ...moved, ...shape }}>
          <img src=${after.src} alt=${after.alt} style=${shape} />
          ${overlay && shaded && html`<img class="over trust" src=${overlay.src} alt=${overlay.alt}  />`}
          <img class="over" src=${before.src} alt=${before.alt} style=${{ clipPath: `inset(0 ${100 - cut}% 0 0)` }} />
        </div>
        <span class="tag left">${before.tag}</span><span class="tag right">${after.tag}</span>
        <div class="divider" style=${{ left: `${split}%` }}></div>
        <input type="range" min="0" max="100" step="0.5" value=${split} aria-label=${`Divider between ${before.tag} and ${after.tag}`} aria-describedby=${help}
          onInput=${(event) => setSplit(Number(event.currentTarget.value))} onKeyDown=${(event) => !event.ctrlKey && !event.metaKey && keys[event.key] && (event.preventDefault(), keys[event.key]())} />
      </div>
      <div class="row between">
        <div class="row tight" role="group" aria-label="Zoom">
          <button type="button" class="button icon little" aria-label="Zoom out" title="Zoom out" disabled=${!zoomed} onClick=${() => zoomBy(1 / STEP)}><${Minus} /></button>
          <button type="button" class="button icon little" aria-label="Zoom in" title="Zoom in" disabled=${view.zoom >= MOST_ZOOM} onClick=${() => zoomBy(STEP)}><${Plus} /></button>
          <button type="button" class="button icon little" aria-label="Whole image" title="Whole image" disabled=${!zoomed} onClick=${fit}><${Fit} /></button>
          ${overlay && html`<button type="button" class="button little" aria-pressed=${shaded} onClick=${() => setShaded(!shaded)}>${overlay.name}</button>`}
        </div>
        <label class="row tight small soft">Divider <input type="range" min="0" max="100" value=${split} style=${{ width: "120px" }} hidden=${!zoomed} aria-label="Divider, while zoomed in" onInput=${(event) => setSplit(Number(event.currentTarget.value))} /><span class="number">${Math.round(split)} %</span></label>
      </div>
      ${overlay && shaded && html`<p class="hint">${overlay.legend}</p>`}
      <p class="hint" id=${help}>Drag the divider, or use the arrow keys. <kbd>+</kbd> <kbd>−</kbd> zoom, <kbd>W</kbd> <kbd>A</kbd> <kbd>S</kbd> <kbd>D</kbd> move.</p>
    </div>`;
}
