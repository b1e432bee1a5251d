// Files that were dropped or picked, and the pairs that they form.

/** @typedef {{file: File, path: string}} Found */
/** @typedef {{name: string, clean: File | null, distorted: File | null}} PairOfFiles */

const IMAGE = /\.(png|jpe?g|webp|tiff?|bmp)$/i;
const NOT_READ = /\.(heic|heif|avif|jxl|gif|psd|exr|dng|cr[23]|nef|arw|orf|rw2|raf)$/i; // Formats that the service does not read.
const CLEAN = /^(clean|gt|ground[ _-]?truth|hr|hq|sharp|target|reference|original)s?$/i;
const DISTORTED = /^(distorted|lq|lr|noisy|noise|blurred|blurry|degraded|corrupted|input)s?$/i;

export const isArchive = (file) => /\.zip$/i.test(file.name) || file.type === "application/zip";
const isImage = (file) => IMAGE.test(file.name) && !file.name.startsWith(".");

/** Everything in a drop, folders included. Must be called within the event, whose items are gone afterwards. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files].map((file) => ({ file, path: file.name }));
  return (await Promise.all(entries.map((entry) => walk(entry, "")))).flat();
}

/** Everything in a file input. @returns {Found[]} */
export const picked = (input) => [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

async function walk(entry, above) {
  const path = above ? `${above}/${entry.name}` : entry.name;
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path }];
  const reader = entry.createReader();
  const children = [];
  // A reader hands out a hundred entries at most, so it is asked until it has no more.
  for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length > 0; ) {
    children.push(...some);
  }
  return (await Promise.all(children.map((child) => walk(child, path)))).flat();
}

/** Which side a file is on, by the innermost folder that tells. */
function sideOf(path) {
  const folders = path.split("/").slice(0, -1).reverse();
  for (const folder of folders) {
    if (CLEAN.test(folder)) return "clean";
    if (DISTORTED.test(folder)) return "distorted";
  }
  return null;
}

/**
 * Sort what was found: an archive, or the images of the two sides. `side` is the zone that they came in by, if any; a
 * folder with both sides in it is understood in either zone.
 * @param {Found[]} found @param {"clean" | "distorted" | null} side
 */
export function sorted(found, side) {
  const archive = found.find(({ file }) => isArchive(file))?.file ?? null;
  const images = found.filter(({ file }) => isImage(file));
  const sides = images.map(({ path }) => sideOf(path));
  const told = sides.includes("clean") && sides.includes("distorted");
  const at = (wanted) => images.filter((_, place) => (told ? sides[place] : (side ?? sides[place])) === wanted);
  const clean = at("clean").map(({ file }) => file);
  const distorted = at("distorted").map(({ file }) => file);
  const top = found.find(({ path }) => path.includes("/"))?.path.split("/")[0] ?? null;
  const folder = top && sideOf(`${top}/`) === null ? top : null; // "clean" says nothing about whose pairs they are.
  const read = new Set(images.map(({ path }) => stem({ name: path })));
  const unread = found.filter(({ path }) => NOT_READ.test(path) && !read.has(stem({ name: path }))).map(({ path }) => path); // Not beside a converted one.
  const useless = archive || images.length > 0 || unread.length > 0 ? 0 : found.length;
  return { archive, clean, distorted, folder, lost: images.length - clean.length - distorted.length, unread, useless };
}

export const stem = (file) => file.name.replace(/\.[^.]*$/, "");
const byName = (one, other) => one.name.localeCompare(other.name, "en", { numeric: true });

/** Pairs as the service forms them: by stem, or by order where no two share one. @returns {PairOfFiles[]} */
export function pairUp(clean, distorted) {
  const [ones, others] = [[...clean].sort(byName), [...distorted].sort(byName)];
  const byStem = new Map(ones.map((file) => [stem(file), file]));
  const shared = others.filter((file) => byStem.has(stem(file)));
  if (shared.length === 0 && ones.length === others.length) {
    return ones.map((file, place) => ({ name: stem(file), clean: file, distorted: others[place] }));
  }
  const partner = new Map(others.map((file) => [stem(file), file]));
  const names = [...new Set([...byStem.keys(), ...partner.keys()])].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return names.map((name) => ({ name, clean: byStem.get(name) ?? null, distorted: partner.get(name) ?? null }));
}

/** How many of the files are in no pair: of those on one side whose stems are equal only the last is. */
export const leftOut = (files, pairs) => files.length - pairs.flatMap(({ clean, distorted }) => [clean, distorted]).filter(Boolean).length;

/** The newest of equal names counts, so that a file may be dropped again. */
export function merged(before, added) {
  const names = new Set(added.map((file) => file.name));
  return [...before.filter((file) => !names.has(file.name)), ...added];
}

/** A model's name from a folder's or a file's. */
export function modelName(text) {
  const name = (text ?? "").toLowerCase().replace(/\.zip$/, "").replaceAll(/[^a-z0-9._-]+/g, "-").replaceAll(/^[^a-z0-9]+|[^a-z0-9]+$/g, "");
  return name.slice(0, 63) || "my-device";
}
