// The collection page: what it holds, what its indexes became, how fresh it is, its jobs, and compaction.

import { Problem, call, path } from "./api.js";
import { announce, el, measure, put } from "./dom.js";
import { emptyBox, problemBox } from "./problem.js";
import { bytes, count, plain } from "./text.js";

const POLL_MS = [300, 500, 800, 1200, 2000];
const STATES = {
  ready: "Ready to search.",
  "read-only":
    "It can be searched. Another process writes to it, or its disk refuses: nothing can be changed from here.",
  failed: "It could not be opened; the other collections are served all the same.",
};
const FIELD_WORDS = {
  encoder: "encoder",
  dim: "dimensions",
  fingerprint: "fingerprint",
  index: "index asked for",
  built_as: "built as",
  because: "because",
  metric: "metric",
  storage: "stored as",
  device: "device",
  engine: "engine",
  language: "language",
  size_bytes: "size",
};

/** The page. One instance; `show` and `leave` bracket its life on the screen. */
export class CollectionPage {
  /** root: the element to fill. changed: called with every new Summary. */
  constructor(root, changed) {
    Object.assign(this, { root, changed });
    this.running = null;
    this.name = null;
  }

  /** Stop polling. */
  leave() {
    this.running?.abort();
    this.running = null;
  }

  /** Fetch and show a collection by name. */
  async show(name) {
    this.leave();
    const running = new AbortController();
    this.running = running;
    if (this.name !== name) put(this.root, el("p", { class: "waiting" }, "Asking the server…"));
    this.name = name;
    try {
      const [summary, jobs] = await Promise.all([
        call("GET", path("v1", "collections", name), { signal: running.signal }),
        this.jobs(running.signal),
      ]);
      if (running.signal.aborted) return;
      this.changed(summary);
      this.draw(summary, jobs);
      const job = (jobs ?? []).find((each) => each.id === summary.job && each.state === "running");
      if (job) await this.follow(job, running.signal);
    } catch (error) {
      if (running.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      put(this.root, problemBox(error, { retry: () => this.show(name) }));
    }
  }

  async jobs(signal) {
    try {
      const answer = await call("GET", "/v1/jobs", { signal });
      return (answer.jobs ?? []).filter((job) => job.collection === this.name);
    } catch (error) {
      if (error instanceof Problem && error.status === 403) return null; // shown to admin keys only
      throw error;
    }
  }

  draw(summary, jobs) {
    this.compactor = el("div", { class: "compactor" });
    const isPartial = summary.state !== "failed" && summary.documents === undefined;
    const isKnown = summary.state !== "failed" && !isPartial;
    put(
      this.root,
      el(
        "div",
        { class: "page-head" },
        el("h1", {}, summary.name),
        el("span", { class: `state ${summary.state}` }, summary.state),
        el("button", { type: "button", class: "quiet", onclick: () => this.show(this.name) }, "Refresh"),
      ),
      el(
        "p",
        { class: "lead" },
        STATES[summary.state] ?? "",
        isPartial ? " This key sees only some of its documents, so its counts are not told." : "",
      ),
      summary.error ? problemBox(new Problem({ title: "Why", detail: summary.error })) : null,
      isKnown
        ? el(
            "dl",
            { class: "facts" },
            fact("documents", count(summary.documents)),
            fact("passages", count(summary.passages)),
            fact("on disk", bytes(summary.size_bytes)),
            fact("generation", count(summary.generation)),
            fact("default mode", summary.default_mode),
            fact("modes", (summary.modes ?? []).join(", ") || "–"),
            fact("aliases", (summary.aliases ?? []).join(", ") || "none"),
            summary.chunking ? fact("chunking", summary.chunking) : null,
          )
        : null,
      isKnown
        ? el(
            "section",
            { "aria-labelledby": "fresh-title" },
            el("h2", { id: "fresh-title" }, "Freshness"),
            freshness(summary),
            this.compactor,
          )
        : null,
      isKnown
        ? el(
            "section",
            { "aria-labelledby": "fields-title" },
            el("h2", { id: "fields-title" }, "Fields"),
            el("div", { class: "cards" }, Object.entries(summary.fields ?? {}).map(fieldCard)),
          )
        : null,
      el("section", { "aria-labelledby": "jobs-title" }, el("h2", { id: "jobs-title" }, "Jobs"), jobTable(jobs)),
    );
    this.drawCompactor(summary);
  }

  drawCompactor(summary) {
    const possible = summary.state === "ready";
    const start = el(
      "button",
      { type: "button", class: "main", disabled: !possible, onclick: () => this.compact(start) },
      "Compact now",
    );
    put(
      this.compactor,
      start,
      el(
        "p",
        { class: "fine" },
        possible
          ? "Folds everything written into a new generation. Searches and writes go on meanwhile. " +
              "It also starts by itself when enough was written."
          : "Compaction needs a collection that is ready and open for writing.",
      ),
    );
  }

  async compact(button) {
    const { signal } = this.running;
    button.disabled = true;
    let told = { where: "Compaction did not start" };
    try {
      const job = await call("POST", path("v1", "collections", this.name, "compact"), { signal });
      told = { where: "The compaction's progress is not known", retry: () => this.show(this.name) };
      announce("Compaction started");
      await this.follow(job, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      button.disabled = false;
      this.compactor.querySelector(".problem")?.remove();
      this.compactor.append(problemBox(error, told));
    }
  }

  /** Poll a job until it ends, then show the collection anew. */
  async follow(job, signal) {
    for (let turn = 0; job.state === "running"; turn += 1) {
      this.progress(job);
      await pause(POLL_MS[Math.min(turn, POLL_MS.length - 1)], signal);
      job = await call("GET", path("v1", "jobs", job.id), { signal });
    }
    if (signal.aborted) return;
    announce(job.state === "done" ? `${job.kind} done` : `${job.kind} failed: ${job.error ?? ""}`);
    await this.show(this.name);
    const ended =
      job.state === "done"
        ? el("p", { class: "done", role: "status" }, `${sentence(job.kind)} done in ${seconds(job.seconds)}.`)
        : problemBox(
            new Problem({ title: `${sentence(job.kind)} failed`, detail: job.error ?? "The server gives no reason." }),
          );
    this.compactor?.prepend(ended);
  }

  progress(job) {
    const known = typeof job.total === "number" && job.total > 0;
    const far = known ? `${count(job.done)} of ${count(job.total)}` : job.done ? count(job.done) : "";
    const words = [`${sentence(job.kind)}: ${job.stage || "starting"}`, far].filter(Boolean).join(", ");
    if (!this.compactor.querySelector("progress")) {
      put(
        this.compactor,
        el("p", { id: "job-words" }),
        el("progress", { "aria-labelledby": "job-words" }),
        el("p", { class: "fine" }),
      );
    }
    const [line, bar, fine] = this.compactor.children;
    line.textContent = words;
    fine.textContent = `${seconds(job.seconds)} so far`;
    if (known) Object.assign(bar, { max: job.total, value: job.done });
    else bar.removeAttribute("value");
  }
}

const sentence = (kind) =>
  ({ compact: "Compaction", reembed: "Re-embedding", snapshot: "Snapshot", restore: "Restoring" })[kind] ?? kind;

const seconds = (value) => (typeof value === "number" ? `${value.toFixed(value < 10 ? 1 : 0)} s` : "–");

const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value ?? "–"));

function freshness(summary) {
  const { passages = 0, fresh_passages: fresh = 0, replaced_passages: replaced = 0 } = summary;
  const settled = Math.max(0, passages - replaced);
  const all = settled + fresh + replaced || 1;
  const part = (name, value) => (value > 0 ? measure(el("i", { class: name }), "--part", value / all) : null);
  return el(
    "div",
    { class: "fresh" },
    el(
      "div",
      { class: "stack", "aria-hidden": "true" },
      part("settled", settled),
      part("new", fresh),
      part("dead", replaced),
    ),
    el(
      "ul",
      { class: "legend" },
      el("li", { class: "settled" }, `${count(settled)} in the index`),
      el("li", { class: "new" }, `${count(fresh)} fresh: written since, searched beside it`),
      el("li", { class: "dead" }, `${count(replaced)} replaced: masked until the next compaction`),
    ),
  );
}

function fieldCard([name, facts]) {
  const rows = Object.entries(facts)
    .filter(([key]) => key !== "kind")
    .map(([key, value]) => {
      const shown = key.endsWith("size_bytes")
        ? bytes(value)
        : typeof value === "number" && Number.isInteger(value)
          ? count(value)
          : plain(value ?? "–");
      const missed = key.startsWith("recall@") && shown.includes("NOT REACHED");
      return el(
        "div",
        { class: missed ? "missed" : null },
        el("dt", {}, FIELD_WORDS[key] ?? key.replaceAll("_", " ")),
        el("dd", {}, shown),
      );
    });
  return el(
    "article",
    { class: "card" },
    el("h3", {}, name, " ", el("span", { class: "fine" }, facts.kind)),
    el("dl", {}, rows),
  );
}

function jobTable(jobs) {
  if (jobs === null) return el("p", { class: "fine" }, "Jobs are shown to keys with the scope admin.");
  if (jobs.length === 0)
    return emptyBox("No jobs", "Compactions, re-embeddings, snapshots and restores are listed here.");
  return el(
    "div",
    { class: "wide" },
    el(
      "table",
      { class: "jobs" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ["job", "state", "stage", "time", "outcome"].map((name) => el("th", { scope: "col" }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        jobs
          .toReversed()
          .map((job) =>
            el(
              "tr",
              {},
              el("th", { scope: "row" }, sentence(job.kind), " ", el("code", { class: "fine" }, job.id)),
              el("td", {}, el("span", { class: `state ${job.state}` }, job.state)),
              el("td", {}, job.stage ?? ""),
              el("td", { class: "number" }, seconds(job.seconds)),
              el("td", { class: "outcome" }, job.error ?? outcome(job)),
            ),
          ),
      ),
    ),
  );
}

const outcome = (job) =>
  Object.entries(job.result ?? {})
    .filter(([, value]) => value !== null && !(Array.isArray(value) && value.length === 0))
    .map(([key, value]) => `${key.replaceAll("_", " ")} ${typeof value === "number" ? count(value) : plain(value)}`)
    .join(", ");

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(signal.reason);
      },
      { once: true },
    );
  });
}
