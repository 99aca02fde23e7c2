// Where the time of a search went: one bar per stage, each beginning where the one before it ended.

import { bar, el, measure } from "./dom.js";
import { milliseconds } from "./text.js";

/** Stages as [{name, ms, start}], with what no stage accounts for at the end; and the length of the whole scale. */
function stages(timings, total) {
  let start = 0;
  const list = Object.entries(timings ?? {}).map(([name, ms]) => {
    const stage = { name, ms, start };
    start += ms;
    return stage;
  });
  const rest = (total ?? 0) - start;
  if (list.length && rest > 0.01 * total) list.push({ name: "other", ms: rest, start });
  return { list, scale: Math.max(total ?? 0, start) || 1 };
}

/** A disclosure: total and a strip of stages when closed, the waterfall when open. toggled: called with its state. */
export function waterfall(answer, { open, toggled, roundTrip }) {
  const { list, scale } = stages(answer.timings_ms, answer.total_ms);
  const details = el(
    "details",
    { class: "timings", open },
    el(
      "summary",
      {},
      el("span", {}, milliseconds(answer.total_ms)),
      el(
        "span",
        { class: "strip", "aria-hidden": "true" },
        list.map((stage) =>
          measure(el("i", { title: `${stage.name} ${milliseconds(stage.ms)}` }), "--part", stage.ms / scale),
        ),
      ),
    ),
    el(
      "table",
      {},
      el("caption", { class: "hidden-text" }, `Time per stage, ${answer.mode}`),
      el(
        "thead",
        { class: "hidden-text" },
        el("tr", {}, el("th", { scope: "col" }, "stage"), el("td", {}), el("th", { scope: "col" }, "time")),
      ),
      el(
        "tbody",
        {},
        list.map((stage) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, stage.name),
            el("td", { class: "track", "aria-hidden": "true" }, bar(stage.start / scale, stage.ms / scale)),
            el("td", { class: "number" }, milliseconds(stage.ms)),
          ),
        ),
      ),
      el(
        "tfoot",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "row" }, "total"),
          el("td", {}),
          el("td", { class: "number" }, milliseconds(answer.total_ms)),
        ),
      ),
    ),
    el("p", { class: "fine" }, `${milliseconds(roundTrip)} until the answer was in this browser`),
  );
  details.addEventListener("toggle", () => toggled(details.open));
  return details;
}
