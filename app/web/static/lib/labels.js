// Places for the labels of a drawing, so that none lies on another.

const LINE_HEIGHT = 1.25; // A line's height by the size of its letters, with what they have above and below.

/** @typedef {{left: number, right: number, top: number, bottom: number}} Box */

let pen = null;

/** How wide the page draws a line of text, in pixels. */
export function widthOf(text, { size = 12, weight = 400 } = {}) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = `${weight} ${size}px ${getComputedStyle(document.documentElement).getPropertyValue("--sans")}`;
  return pen.measureText(text).width;
}

/** @returns {Box} of a width and a height around a centre */
export const around = ([x, y], width, height = width) => ({ left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 });

/** @returns {Box} of a line of text around a centre */
export const lineBox = (at, text, { size = 12, weight = 400 } = {}) => around(at, widthOf(text, { size, weight }) + 4, LINE_HEIGHT * size);

const apart = (one, other) => one.right <= other.left || other.right <= one.left || one.bottom <= other.top || other.bottom <= one.top;
const inside = (box, width, height) => box.left >= 0 && box.right <= width && box.top >= 0 && box.bottom <= height;

/**
 * The first of the spots whose box lies within the drawing and on none that is taken; its box is taken from then on.
 * @template {{box: Box}} S @param {S[]} spots @param {Box[]} taken @returns {S | null}
 */
export function firstFree(spots, taken, width, height) {
  const free = spots.find(({ box }) => inside(box, width, height) && taken.every((other) => apart(box, other)));
  if (free) taken.push(free.box);
  return free ?? null;
}
