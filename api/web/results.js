// The results: one column per mode, each answered on its own, linked where they agree.

import { Problem, call, path } from "./api.js";
import { announce, el, measure, put } from "./dom.js";
import { bestScores, hitItem, hitKey, showElsewhere } from "./hit.js";
import { Links } from "./links.js";
import { emptyBox, problemBox } from "./problem.js";
import { address } from "./state.js";
import { counted, milliseconds } from "./text.js";
import { waterfall } from "./timings.js";

const SLOW_MS = 1500;
const SNIPPET_CHARACTERS = 240;

/** What a search sends, in one mode. */
function searchBody(state, mode, filter) {
  const body = {
    mode: mode || null,
    k: state.k,
    offset: state.offset,
    group: state.group,
    explain: true,
    snippet_chars: SNIPPET_CHARACTERS,
  };
  if (state.like) body.like = state.like;
  else body.query = state.q;
  if (filter !== null) body.filter = filter;
  if (state.diversity) body.diversity = state.diversity;
  if (state.min_score !== null) body.min_score = state.min_score;
  if (state.depth !== null) body.depth = state.depth;
  if (state.rerank) body.rerank = { model: state.rerank, depth: state.rerank_depth };
  return body;
}

/** The results of the search at hand. One instance. */
export class Results {
  /** root: the element to fill. found: called with the hits of every answer; refused: with every Problem. */
  constructor(root, { found, refused }) {
    Object.assign(this, { root, found, refused });
    this.columns = [];
    this.running = null;
    this.links = null;
    this.evidenceOpen = false;
    this.timingsOpen = null;
  }

  /** Stop what runs and show `nodes` in place of results. */
  say(...nodes) {
    this.running?.abort();
    this.links?.drop();
    this.links = null;
    this.columns = [];
    put(this.root, ...nodes);
  }

  /** Search in every mode of `modes` at once; settles when all have answered. */
  async run(state, modes, filter) {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    this.state = state;
    if (JSON.stringify(modes) !== JSON.stringify(this.columns.map((column) => column.mode))) this.lay(modes);
    put(this.trouble);
    this.grid.hidden = false;
    this.more.hidden = true;
    await Promise.all(this.columns.map((column) => this.fill(column, filter, running)));
    if (running.signal.aborted) return;
    this.finish();
  }

  /** The hits on the page with this document, best column first: what the document view marks. */
  hit(id, at) {
    const hits = this.columns.flatMap((column) => column.answer?.hits ?? []);
    return hits.find((each) => each.id === id && `${each.passage.start}-${each.passage.end}` === at) ?? null;
  }

  /** Show or hide the evidence of all hits. */
  toggleEvidence() {
    this.evidenceOpen = !this.evidenceOpen;
    for (const details of this.root.querySelectorAll("details.evidence")) details.open = this.evidenceOpen;
    announce(this.evidenceOpen ? "Evidence shown" : "Evidence hidden");
  }

  lay(modes) {
    this.links?.drop();
    this.columns = modes.map((mode, place) => {
      const head = el("div", { class: "head" }, el("h2", { id: `column-${place}` }, mode || "default"));
      const body = el("div", { class: "answer" });
      const section = el("section", { class: "column", "aria-labelledby": `column-${place}` }, head, body);
      return { mode, section, head, body, answer: null, problem: null };
    });
    this.trouble = el("div", {});
    this.grid = el(
      "div",
      { class: "columns", "data-count": modes.length },
      this.columns.map((column) => column.section),
    );
    this.more = el("nav", { class: "pages", "aria-label": "Pages" });
    put(this.root, this.trouble, this.grid, this.more);
    this.links = modes.length > 1 ? new Links(this.grid) : null;
  }

  async fill(column, filter, running) {
    const isStale = column.problem !== null || !column.body.hasChildNodes(); // old hits stay in sight, old failures go
    Object.assign(column, { answer: null, problem: null });
    column.section.setAttribute("aria-busy", "true");
    if (isStale) put(column.body, el("p", { class: "waiting" }, "Searching…"));
    const slow = setTimeout(() => {
      const words = "Still searching. The first search may have to load a model, which takes a while.";
      put(column.body, el("p", { class: "waiting" }, words));
      announce(words);
    }, SLOW_MS);
    const began = performance.now();
    try {
      const url = path("v1", "collections", this.state.collection, "search");
      column.answer = await call("POST", url, {
        body: searchBody(this.state, column.mode, filter),
        signal: running.signal,
      });
      if (running.signal.aborted) return;
      column.roundTrip = performance.now() - began;
      this.found(column.answer.hits);
      this.show(column);
    } catch (error) {
      if (running.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      column.problem = error;
      this.refused(error);
      put(column.head, column.head.firstElementChild);
      put(column.body, problemBox(error, { retry: () => this.again() }));
    } finally {
      clearTimeout(slow);
      if (!running.signal.aborted) column.section.removeAttribute("aria-busy");
    }
  }

  show(column) {
    const { answer } = column;
    // A reranker's hits carry its own name: the scores are its, and so the column is.
    column.head.firstElementChild.textContent = [
      ...new Set([answer.mode, ...answer.hits.map((hit) => hit.stage)]),
    ].join(" → ");
    const open = this.timingsOpen ?? (this.columns.length === 1 && innerWidth >= 1000);
    const toggled = (isOpen) => {
      if (isOpen === open && this.timingsOpen === null) return; // as laid out, by nobody
      this.timingsOpen = isOpen;
      for (const each of this.root.querySelectorAll("details.timings")) each.open = isOpen; // columns stay level
    };
    put(
      column.head,
      column.head.firstElementChild,
      waterfall(answer, { open, toggled, roundTrip: column.roundTrip }),
      answer.notes?.length
        ? el(
            "ul",
            { class: "notes", "aria-label": "Notes" },
            answer.notes.map((note) => el("li", { dir: "auto" }, note)),
          )
        : null,
    );
    if (answer.hits.length === 0) {
      put(column.body, this.none());
      return;
    }
    const best = bestScores(answer.hits);
    put(
      column.body,
      el(
        "ol",
        { class: "hits", start: answer.hits[0].rank },
        answer.hits.map((hit) => {
          const at = `${hit.passage.start}-${hit.passage.end}`;
          return hitItem(hit, {
            href: address({ ...this.state, doc: hit.id, at }),
            key: hitKey(hit, this.state.group),
            best,
            open: this.evidenceOpen,
          });
        }),
      ),
    );
  }

  none() {
    if (this.state.offset > 0) {
      return emptyBox(
        "No more results",
        el(
          "p",
          {},
          el(
            "a",
            { href: address({ ...this.state, offset: 0, doc: "", at: "" }), "data-go": true },
            "Back to the first page",
          ),
        ),
      );
    }
    const narrow = [this.state.filter && "the filter", this.state.min_score !== null && "the least score"].filter(
      Boolean,
    );
    return emptyBox(
      "Nothing found",
      narrow.length
        ? `Nothing passes ${narrow.join(" and ")}. `
        : "No document matches in this mode. Other words, or another mode, may find something.",
      narrow.length
        ? el(
            "p",
            {},
            el(
              "a",
              { href: address({ ...this.state, filter: "", min_score: null, doc: "", at: "" }), "data-go": true },
              `Search without ${narrow.join(" and ")}`,
            ),
          )
        : null,
    );
  }

  finish() {
    const problems = this.columns.map((column) => column.problem);
    const same = problems.every(
      (each) => each && each.status === problems[0].status && each.detail === problems[0].detail,
    );
    put(this.trouble, same ? problemBox(problems[0], { retry: () => this.again() }) : null);
    this.grid.hidden = same;
    if (same) for (const column of this.columns) put(column.body); // said once, not once a column
    this.compare();
    this.links?.draw();
    this.page();
    const said = this.columns.map(({ mode, answer }) =>
      answer
        ? `${answer.mode}: ${counted(answer.hits.length, "result")} in ${milliseconds(answer.total_ms)}`
        : `${mode || "search"}: failed`,
    );
    announce(said.join("; "));
  }

  compare() {
    const totals = this.columns.map((column) => column.answer?.total_ms ?? 0);
    this.columns.forEach((column, place) =>
      measure(column.section, "--whole", (totals[place] || 1) / (Math.max(...totals) || 1)),
    );
    if (this.columns.length < 2) return;
    const ranks = this.columns.map(
      (column) => new Map((column.answer?.hits ?? []).map((hit) => [hitKey(hit, this.state.group), hit.rank])),
    );
    this.columns.forEach((column, place) => {
      for (const item of column.section.querySelectorAll(".hit")) {
        const { key } = item.dataset;
        const others = this.columns.map((other, index) => ({
          mode: other.mode,
          rank: ranks[index].get(key) ?? null,
          ok: other.answer !== null,
          index,
        }));
        showElsewhere(
          item,
          ranks[place].get(key),
          others.filter((other) => other.ok && other.index !== place),
        );
      }
    });
  }

  page() {
    const { offset, k } = this.state;
    const longest = Math.max(0, ...this.columns.map((column) => column.answer?.hits.length ?? 0));
    const to = (place) => address({ ...this.state, offset: Math.max(0, place), doc: "", at: "" });
    const hasNext = longest >= k;
    this.more.hidden = longest === 0 || (offset === 0 && !hasNext);
    put(
      this.more,
      offset > 0 ? el("a", { href: to(offset - k), rel: "prev", "data-go": true }, "← Previous") : el("span", {}),
      el("span", { class: "fine" }, `${offset + 1} to ${offset + longest}`),
      hasNext ? el("a", { href: to(offset + k), rel: "next", "data-go": true }, "Next →") : el("span", {}),
    );
  }

  again() {
    this.onAgain?.();
  }
}
