// The options of a search: how many, how grouped, how diverse, how deep, and who ranks again.

import { el, put } from "./dom.js";
import { changedOptions, initial } from "./state.js";

/** The options panel. One instance. */
export class OptionsPanel {
  constructor(panel, opener) {
    this.opener = opener;
    this.k = number({ min: 1, max: 1000, step: 1, required: true });
    this.depth = number({ min: 1, step: 1, placeholder: "auto" });
    this.minScore = number({ step: "any", placeholder: "none" });
    this.rerankDepth = number({ min: 1, max: 1000, step: 1 });
    this.group = el(
      "select",
      {},
      el("option", { value: "document" }, "once per document"),
      el("option", { value: "passage" }, "every passage"),
    );
    this.rerank = el("select", {});
    this.rerank.addEventListener("change", () => {
      this.rerankDepth.disabled = !this.rerank.value;
    });
    this.diversity = el("input", { type: "range", min: 0, max: 1, step: 0.05, oninput: () => this.showDiversity() });
    this.diversityValue = el("output", {});
    put(
      panel,
      el(
        "div",
        { class: "fields" },
        field("Results a page", this.k),
        field("Hits", this.group),
        field("Least score", this.minScore, "Hits below it are dropped. Scores compare within one mode only."),
        field("Candidates per stage", this.depth, "How deep each stage looks before fusion."),
        field("Rank again with", this.rerank, "A model that reads the best candidates once more."),
        field("Candidates ranked again", this.rerankDepth),
        el(
          "label",
          { class: "field" },
          el("span", { class: "above" }, "Diversity ", this.diversityValue),
          this.diversity,
          el("span", { class: "fine" }, "0: the most relevant; 1: the most different."),
        ),
      ),
      el(
        "div",
        { class: "buttons" },
        el("button", { type: "button", class: "quiet", onclick: () => this.set(initial()) }, "Back to defaults"),
        el("button", { type: "submit", class: "main" }, "Apply"),
      ),
    );
    this.offer([]);
  }

  /** Offer these rerankers by name, keeping the choice. */
  offer(names) {
    const chosen = this.rerank.value;
    const all = chosen && !names.includes(chosen) ? [...names, chosen] : names;
    put(
      this.rerank,
      el("option", { value: "" }, all.length ? "nothing" : "nothing (no reranker here)"),
      all.map((name) => el("option", { value: name }, name)),
    );
    this.rerank.value = chosen;
  }

  set(state) {
    this.k.value = state.k;
    this.depth.value = state.depth ?? "";
    this.minScore.value = state.min_score ?? "";
    this.rerankDepth.value = state.rerank_depth;
    this.group.value = state.group;
    if (state.rerank && ![...this.rerank.options].some((option) => option.value === state.rerank)) {
      this.rerank.append(el("option", { value: state.rerank }, state.rerank));
    }
    this.rerank.value = state.rerank;
    this.rerankDepth.disabled = !state.rerank;
    this.diversity.value = state.diversity;
    this.showDiversity();
    const changed = changedOptions(state);
    this.opener.textContent = `Options${changed ? ` · ${changed}` : ""}`;
    this.opener.classList.toggle("on", changed > 0);
  }

  /** What is chosen, as parts of a state. */
  get value() {
    const base = initial();
    const read = (input, otherwise) => (input.value === "" ? otherwise : Number(input.value));
    return {
      k: read(this.k, base.k),
      depth: read(this.depth, null),
      min_score: read(this.minScore, null),
      group: this.group.value,
      diversity: Number(this.diversity.value),
      rerank: this.rerank.value,
      rerank_depth: this.rerank.value ? read(this.rerankDepth, base.rerank_depth) : base.rerank_depth,
    };
  }

  showDiversity() {
    this.diversityValue.textContent = Number(this.diversity.value).toFixed(2);
  }
}

const number = (properties) => el("input", { type: "number", inputmode: "decimal", ...properties });

const field = (name, input, help = "") =>
  el(
    "label",
    { class: "field" },
    el("span", { class: "above" }, name),
    input,
    help ? el("span", { class: "fine" }, help) : null,
  );
