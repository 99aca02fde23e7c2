// The document view: a sheet with metadata and the whole text, the found place marked and scrolled to.

import { Problem, call, path } from "./api.js";
import { announce, el, put } from "./dom.js";
import { problemBox } from "./problem.js";
import { breakable, count, marked, plain, pointLength, unitOffsets, visible } from "./text.js";

const SHOWN = 300_000; // characters laid out at once; a longer text begins there, and the rest is a button away

/** The sheet. One instance. */
export class DocumentSheet {
  /** closed: called when the visitor closes it; similar(id) and only(key, value): addresses of searches from here. */
  constructor(dialog, { closed, similar, only }) {
    Object.assign(this, { dialog, similar, only });
    this.shown = "";
    this.running = null;
    this.fetched = null;
    dialog.addEventListener("close", () => {
      if (dialog.open) return; // shown again before this event came
      this.shown = "";
      this.running?.abort();
      closed();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    }); // the backdrop
  }

  /** Close it without telling anyone. */
  hide() {
    if (this.dialog.open) this.dialog.close();
  }

  /** Show a document. at: "start-end" of the passage found, or "". find: says which hit it is, null while unknown. */
  async show(collection, id, at, find) {
    const key = JSON.stringify([collection, id, at]);
    if (key === this.shown && this.dialog.open) return;
    this.shown = key;
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    this.frame(visible(id), el("p", { class: "waiting" }, "Fetching the document…"));
    if (!this.dialog.open) this.dialog.showModal();
    try {
      const answer = await call("POST", path("v1", "collections", collection, "documents", "get"), {
        body: { ids: [id] },
        signal: running.signal,
      });
      if (running.signal.aborted) return;
      const [found] = answer.documents;
      this.fetched = found ? { found, at, hit: find() } : null;
      if (found) this.fill(found, at, this.fetched.hit);
      else
        this.frame(
          visible(id),
          problemBox(
            new Problem({
              status: 404,
              title: "Not there",
              detail: `The collection ${collection} has no document of this id: it may have been deleted.`,
            }),
          ),
        );
    } catch (error) {
      if (running.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.shown = "";
      this.frame(visible(id), problemBox(error, { retry: () => this.show(collection, id, at, find) }));
    }
  }

  /** Mark the matched words as well, where the document was there before the search that found it. */
  mark(hit) {
    if (!this.dialog.open || !this.fetched || this.fetched.hit || hit?.id !== this.fetched.found.id) return;
    this.fetched.hit = hit;
    this.fill(this.fetched.found, this.fetched.at, hit);
  }

  frame(title, ...content) {
    const close = el(
      "button",
      {
        type: "button",
        class: "quiet close",
        "aria-label": "Close the document",
        title: "Close (Esc)",
        onclick: () => this.dialog.close(),
      },
      "×",
    );
    put(
      this.dialog,
      el(
        "div",
        { class: "sheet-head" },
        el("h2", { id: "document-title", tabindex: "-1", dir: "auto" }, breakable(title)),
        close,
      ),
      el("div", { class: "sheet-body", tabindex: "0", role: "region", "aria-label": "Document" }, content),
    );
  }

  fill(found, at, hit) {
    const id = el("code", { class: "id" }, el("bdi", {}, visible(found.id)));
    const copy = el("button", { type: "button", onclick: () => this.copy(found.id, id, copy) }, "Copy id");
    const vectors = Object.entries(found.vectors ?? {});
    this.frame(
      found.title || visible(found.id),
      el("p", { class: "sub" }, id),
      el(
        "div",
        { class: "buttons start" },
        el("a", { class: "button", href: this.similar(found.id), "data-go": true }, "More like this"),
        copy,
      ),
      this.metadata(found.metadata ?? {}),
      vectors.length
        ? el(
            "p",
            { class: "fine" },
            "Vectors: ",
            vectors.map(([name, vector]) => `${name} (${count(vector.length)})`).join(", "),
          )
        : null,
      this.text(found.text ?? "", at, hit),
      el(
        "p",
        { class: "fine" },
        `${count(pointLength(found.text ?? ""))} characters`,
        found.version ? `, version ${found.version}` : "",
      ),
    );
    this.dialog.querySelector("#document-title").focus();
    (this.dialog.querySelector(".text mark") ?? this.dialog.querySelector(".text .found"))?.scrollIntoView({
      block: "center",
    });
  }

  metadata(metadata) {
    const rows = Object.entries(metadata);
    if (rows.length === 0) return el("p", { class: "fine" }, "No metadata.");
    return el(
      "table",
      { class: "metadata" },
      el("caption", { class: "hidden-text" }, "Metadata"),
      el(
        "tbody",
        {},
        rows.map(([key, value]) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, el("bdi", {}, key)),
            el("td", { dir: "auto" }, plain(value)),
            el(
              "td",
              {},
              isFilterable(value)
                ? el(
                    "a",
                    { class: "fine", href: this.only(key, value), "data-go": true, "aria-label": `Filter by ${key}` },
                    "filter",
                  )
                : null,
            ),
          ),
        ),
      ),
    );
  }

  text(text, at, hit) {
    if (text === "") return el("p", { class: "fine" }, "This document has no text.");
    const { found, words } = places(text, at, hit);
    const paragraph = el("div", { class: "text", dir: "auto" });
    const from = Math.max(0, found[0] - SHOWN / 2);
    const draw = (start, end) =>
      put(
        paragraph,
        marked(text, start, Math.max(start, found[0]), []),
        found[1] > found[0] ? el("span", { class: "found" }, marked(text, found[0], found[1], words)) : null,
        marked(text, Math.max(start, found[1]), end, []),
      );
    if (text.length <= SHOWN) {
      draw(0, text.length);
      return paragraph;
    }
    draw(from, Math.min(text.length, from + SHOWN));
    const all = el(
      "button",
      {
        type: "button",
        onclick: () => {
          draw(0, text.length);
          all.remove();
        },
      },
      `Show all ${count(pointLength(text))} characters`,
    );
    return [paragraph, all];
  }

  async copy(id, shown, button) {
    try {
      await navigator.clipboard.writeText(id);
      button.textContent = "Copied";
      announce("The id is copied.");
    } catch {
      // Clipboards are open to secure pages only: select the id, so that one key copies it.
      getSelection().selectAllChildren(shown);
      button.textContent = "Selected: press Ctrl+C";
    }
  }
}

const isFilterable = (value) =>
  value === null ||
  typeof value !== "object" ||
  (Array.isArray(value) && value.length > 0 && value.every((each) => each === null || typeof each !== "object"));

/**
 * The found stretch and the matched words, as string offsets. The passage where it is a part of the text; the snippet
 * where the passage is the whole text, which would mark nothing.
 */
function places(text, at, hit) {
  const passage = /^(\d+)-(\d+)$/.exec(at)?.slice(1).map(Number) ?? [0, 0];
  const base = hit ? hit.passage.start : 0;
  const snippet = hit?.snippet ? [hit.snippet.start + base, hit.snippet.end + base] : [0, 0];
  const isWhole = passage[0] === 0 && passage[1] >= pointLength(text.trimEnd());
  const chosen = isWhole ? snippet : passage;
  const highlights = (hit?.snippet?.highlights ?? []).map(([a, b]) => [a + base, b + base]);
  const offsets = unitOffsets(text, [...chosen, ...highlights.flat()]);
  return {
    found: offsets.slice(0, 2),
    words: highlights.map((_, place) => [offsets[2 + 2 * place], offsets[3 + 2 * place]]),
  };
}
