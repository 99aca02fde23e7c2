// Text and numbers for people. The server counts characters as Python does, in code points; JavaScript strings are
// counted in UTF-16 units, so every offset is converted before it cuts.

import { el } from "./dom.js";

const BEYOND_BASIC_PLANE = /[\ud800-\udbff]/;
const COUNT = new Intl.NumberFormat("en");

/** Convert ascending-or-not code point offsets into a string's own offsets. Cost: one pass, none for plain text. */
export function unitOffsets(text, points) {
  if (!BEYOND_BASIC_PLANE.test(text)) return points.map((point) => Math.min(point, text.length));
  const wanted = new Set(points);
  const found = new Map();
  let point = 0;
  let unit = 0;
  for (const character of text) {
    if (wanted.has(point)) found.set(point, unit);
    point += 1;
    unit += character.length;
  }
  return points.map((each) => found.get(each) ?? text.length);
}

/** How many code points a string has: the length that the server would give it. */
export function pointLength(text) {
  return BEYOND_BASIC_PLANE.test(text) ? [...text].length : text.length;
}

/** Cut text[start, end) (string offsets) into text and <mark> nodes; spans: ascending [a, b) string offsets. */
export function marked(text, start, end, spans) {
  const parts = [];
  let place = start;
  for (const [a, b] of spans) {
    const from = Math.max(a, place);
    const to = Math.min(b, end);
    if (from >= to) continue;
    if (from > place) parts.push(text.slice(place, from));
    parts.push(el("mark", {}, text.slice(from, to)));
    place = to;
  }
  if (place < end) parts.push(text.slice(place, end));
  return parts;
}

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** An id as it really is: characters that cannot be seen, or that turn the ones after them around, as \\u escapes. */
export const visible = (id) => id.replace(UNSEEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Text as nodes that may break after dots, slashes and the like: long dotted names then break where people would. */
export const breakable = (text) =>
  text.split(/(?<=[._/:\-])(?=\w)/).flatMap((part, place) => (place ? [el("wbr"), part] : [part]));

/** 7233 as 7,233. */
export const count = (value) => (typeof value === "number" ? COUNT.format(value) : "–");

/** "1 document", "2 documents". */
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Milliseconds with three figures that matter. */
export function milliseconds(value) {
  if (typeof value !== "number") return "–";
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ms`;
}

/** Bytes in binary units. */
export function bytes(value) {
  if (typeof value !== "number") return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${unit === 0 || left >= 100 ? left.toFixed(0) : left.toFixed(1)} ${units[unit]}`;
}

/** A score with four figures; scores of different stages have different scales. */
export function score(value) {
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 4);
}

/** A JSON value on one line. */
export function plain(value) {
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((each) => each === null || typeof each !== "object"))
    return value.map(plain).join(", ");
  return JSON.stringify(value);
}
