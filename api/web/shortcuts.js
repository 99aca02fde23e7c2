// Keys. Single letters can be switched off, for those who dictate or whose keyboard sends them by accident.

import { byId, remember, remembered } from "./dom.js";

const TYPING = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]";

/** Wire the keyboard. actions: {evidence(), next(), previous()}. */
export function setUpShortcuts(actions) {
  const help = byId("help-dialog");
  const box = byId("single-keys");
  box.checked = remembered("single-keys") !== "off";
  box.addEventListener("change", () => remember("single-keys", box.checked ? "on" : "off"));
  byId("help").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());

  const letters = {
    "/": () => {
      byId("query").focus();
      byId("query").select();
    },
    "?": () => help.showModal(),
    j: () => step(1),
    k: () => step(-1),
    h: () => across(-1),
    l: () => across(1),
    e: actions.evidence,
    n: actions.next,
    p: actions.previous,
  };
  const arrows = {
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    ArrowRight: () => across(1),
    ArrowLeft: () => across(-1),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]"))
      return;
    const { target, key } = event;
    if (target.id === "query") {
      if (key === "ArrowDown" && step(1)) event.preventDefault();
      if (key === "Escape") target.blur();
      return;
    }
    if (target.closest(TYPING) || byId("search-view").hidden) return;
    // Arrows belong to a focused control and, away from the hits, to scrolling: they move only from hit to hit.
    const action = arrows[key] && target.closest(".hit") ? arrows[key] : box.checked ? letters[key] : null;
    if (!action) return;
    if (action() !== false) event.preventDefault();
  });
}

const current = () => document.activeElement?.closest?.(".hit") ?? null;

function focusHit(hit) {
  if (!hit) return false;
  hit.querySelector(".title").focus({ preventScroll: true });
  hit.scrollIntoView({ block: "nearest", inline: "nearest" });
  return true;
}

function step(by) {
  const from = current();
  if (!from) return focusHit(document.querySelector(".hit"));
  const next = by > 0 ? from.nextElementSibling : from.previousElementSibling;
  if (next || by > 0) return focusHit(next);
  byId("query").focus();
  return true; // the letter must not be typed there
}

function across(by) {
  const from = current();
  if (!from) return false;
  const columns = [...document.querySelectorAll(".column")];
  const beside = columns[columns.indexOf(from.closest(".column")) + by];
  if (!beside) return false;
  const hits = [...beside.querySelectorAll(".hit")];
  const place = [...from.parentElement.children].indexOf(from);
  return focusHit(hits.find((hit) => hit.dataset.key === from.dataset.key) ?? hits[Math.min(place, hits.length - 1)]);
}
