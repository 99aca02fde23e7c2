// Building the page from data. Nothing here, or anywhere on the page, parses markup: strings become text nodes and
// attribute values, so a hostile document stays inert. A Content-Security-Policy stands behind that.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id, which the page is known to have. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element. properties: `class`, attributes (true = present, false or null = absent), `onclick` and the like as
 * functions. children: nodes, or strings and numbers that become text; null and false are left out; arrays are
 * flattened.
 */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for a shape of an inline SVG picture. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...nodes(children));
  return node;
}

const nodes = (children) =>
  children.flat(Infinity).filter((child) => child !== null && child !== false && child !== undefined);

/** Put `children` in the place of everything in `node`. */
export function put(node, ...children) {
  node.replaceChildren(...nodes(children));
  return node;
}

/** Set a CSS custom property: the one way a number reaches the style, as a style attribute is forbidden. */
export function measure(node, name, value) {
  node.style.setProperty(name, String(value));
  return node;
}

/** A bar in a track: where it begins and how long it is, as parts of the track. */
export const bar = (from, part) => measure(measure(el("span", { class: "bar" }), "--from", from), "--part", part);

/** Say something to those who do not see the page. The text is changed late, so that a repeated one is said again. */
export function announce(text) {
  const status = byId("status");
  status.textContent = "";
  setTimeout(() => {
    status.textContent = text;
  }, 50);
}

/** Remember a choice in this browser; storage may be forbidden, and then nothing is remembered. */
export function remember(name, value) {
  try {
    localStorage.setItem(`grapnel.${name}`, value);
  } catch {
    /* the choice lasts as long as the page */
  }
}

/** What `remember` kept, or null. */
export function remembered(name) {
  try {
    return localStorage.getItem(`grapnel.${name}`);
  } catch {
    return null;
  }
}
