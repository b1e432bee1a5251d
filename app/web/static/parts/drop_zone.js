// A place where files are dropped, or picked with a button.

import { html, useId, useRef, useState } from "../lib/html.js";
import { dropped, picked } from "../lib/files.js";

/**
 * @param {{label: string, hint: string, icon: Function, accept: string, multiple?: boolean, folders?: boolean,
 *   filled?: string, onFiles: (found: import("../lib/files.js").Found[]) => void, children?: unknown}} props
 */
export function DropZone({ label, hint, icon: Icon, accept, multiple = false, folders = false, filled, onFiles, children }) {
  const [over, setOver] = useState(false);
  const files = useRef(null);
  const folder = useRef(null);
  const title = useId();

  const take = (found) => found.length > 0 && onFiles(found);
  const change = (event) => {
    const found = picked(event.currentTarget);
    event.currentTarget.value = ""; // So that the same file may be picked again.
    take(found);
  };
  const drag = {
    onDragOver: (event) => (event.preventDefault(), setOver(true)),
    onDragLeave: () => setOver(false),
    onDrop: (event) => {
      event.preventDefault();
      setOver(false);
      dropped(event.dataTransfer).then(take);
    },
  };
  return html`
    <div class=${`zone ${over ? "over" : ""} ${filled ? "filled" : ""}`} role="group" aria-labelledby=${title} ...${drag}>
      <${Icon} />
      <h3 id=${title}>${label}</h3>
      <p class="small soft">${filled ?? hint}</p>
      <div class="row">
        <button type="button" class="button little" onClick=${() => files.current.click()}>Choose ${multiple ? "files" : "a file"}<span class="unseen"> for ${label}</span></button>
        ${folders && html`<button type="button" class="button little" onClick=${() => folder.current.click()}>Choose a folder<span class="unseen"> for ${label}</span></button>`}
        ${children}
      </div>
      <input ref=${files} type="file" hidden accept=${accept} multiple=${multiple} aria-label=${`Files for ${label}`} onChange=${change} />
      ${folders && html`<input ref=${folder} type="file" hidden webkitdirectory multiple aria-label=${`Folder for ${label}`} onChange=${change} />`}
    </div>`;
}
