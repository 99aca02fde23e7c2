// One hit: rank, title, the words that matched, and what each stage thought of it.

import { bar, el } from "./dom.js";
import { breakable, marked, plain, score, unitOffsets, visible } from "./text.js";

const METADATA_CHARACTERS = 200;
const PREVIEW = 240;

/** What makes two hits the same one in two columns. */
export const hitKey = (hit, group) => (group === "passage" ? `${hit.passage.ordinal} ${hit.id}` : hit.id);

/** The snippet as nodes, its matched words marked. */
function snippetNodes(hit) {
  const text = hit.passage.text ?? "";
  const shown = hit.snippet ?? { start: 0, end: PREVIEW, highlights: [] };
  const offsets = unitOffsets(text, [shown.start, shown.end, ...shown.highlights.flat()]);
  const [start, end] = offsets;
  const spans = shown.highlights.map((_, place) => [offsets[2 + 2 * place], offsets[3 + 2 * place]]);
  return [start > 0 ? "… " : "", ...marked(text, start, end, spans), end < text.trimEnd().length ? " …" : ""];
}

/** The best score of every stage on this page: what the bars of the evidence are measured by. */
export function bestScores(hits) {
  const best = new Map();
  for (const hit of hits)
    for (const part of hit.evidence ?? [])
      best.set(part.stage, Math.max(best.get(part.stage) ?? 0, Math.abs(part.score)));
  return best;
}

/**
 * A list item for a hit. options: href of its document, key, best (see bestScores), open:
 * whether evidence shows.
 */
export function hitItem(hit, { href, key, best, open }) {
  const title = hit.title || visible(hit.id);
  const named = hit.title && hit.title !== hit.id;
  const several = hit.passage.ordinal > 0 || hit.passage.start > 0;
  return el(
    "li",
    { class: "hit", "data-key": key },
    el("span", { class: "rank" }, el("span", { class: "hidden-text" }, "Rank "), hit.rank),
    el(
      "div",
      { class: "body" },
      el(
        "div",
        { class: "line" },
        el(
          "h3",
          {},
          el(
            "a",
            { class: "title", href, "data-go": true, title: title.length > 60 ? title : null },
            el("bdi", { dir: "auto" }, breakable(title)),
          ),
        ),
        el(
          "span",
          { class: "score", title: `Score in ${hit.stage}; compares within this column only` },
          score(hit.score),
        ),
      ),
      named || several
        ? el(
            "p",
            { class: "sub" },
            named ? el("code", { class: "id", title: visible(hit.id) }, el("bdi", {}, visible(hit.id))) : null,
            several ? el("span", {}, `passage ${hit.passage.ordinal + 1}`) : null,
          )
        : null,
      el("p", { class: "snippet", dir: "auto" }, snippetNodes(hit)),
      metadataLine(hit.metadata),
      el("div", { class: "foot" }, evidence(hit, best, open), el("p", { class: "elsewhere", hidden: true })),
    ),
  );
}

function metadataLine(metadata) {
  const pairs = Object.entries(metadata ?? {});
  if (pairs.length === 0) return null;
  let left = METADATA_CHARACTERS;
  const shown = [];
  for (const [key, value] of pairs) {
    if (left <= 0) break;
    const text = plain(value).slice(0, left);
    left -= key.length + text.length;
    shown.push(
      el(
        "span",
        {},
        el("b", {}, el("bdi", {}, key.slice(0, METADATA_CHARACTERS))),
        " ",
        el("bdi", { dir: "auto" }, text),
      ),
    );
  }
  return el("p", { class: "meta" }, shown);
}

function evidence(hit, best, open) {
  const parts = hit.evidence ?? [];
  if (parts.length === 0) return null;
  return el(
    "details",
    { class: "evidence", open },
    el(
      "summary",
      {},
      parts.map((part) => el("span", {}, `${part.stage} `, el("b", {}, part.rank ?? "–"))),
    ),
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, "stage"),
          el("th", { scope: "col", class: "number" }, "rank"),
          el("th", { scope: "col", class: "number" }, "score"),
          el("td", {}),
        ),
      ),
      el(
        "tbody",
        {},
        parts.map((part) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, part.stage),
            el(
              "td",
              { class: "number", title: part.rank === null ? "outside this stage's depth" : null },
              part.rank ?? "–",
            ),
            el("td", { class: "number" }, score(part.score)),
            el(
              "td",
              { class: "track", "aria-hidden": "true" },
              bar(0, Math.min(1, Math.abs(part.score) / (best.get(part.stage) || 1))),
            ),
          ),
        ),
      ),
    ),
  );
}

/** Say in a hit where the other columns rank it. places: [{mode, rank | null}]. */
export function showElsewhere(item, rank, places) {
  const line = item.querySelector(".elsewhere");
  line.hidden = places.length === 0;
  line.replaceChildren(
    ...places.map(({ mode, rank: other }) => {
      if (other === null) return el("span", { class: "absent" }, `${mode} `, el("b", {}, "not on this page"));
      const change = other - rank;
      const arrow = change === 0 ? " =" : ` ${change > 0 ? "↓" : "↑"}${Math.abs(change)}`;
      const words = change === 0 ? "the same rank" : `${Math.abs(change)} ${change > 0 ? "lower" : "higher"}`;
      return el(
        "span",
        { title: `${mode} ranks it ${other}: ${words}` },
        `${mode} `,
        el("b", {}, `#${other}`),
        el("span", { "aria-hidden": "true" }, arrow),
        el("span", { class: "hidden-text" }, `, ${words}`),
      );
    }),
  );
}
