// The filter panel: rows on one side, the same filter as JSON on the other, each following the other.

import { el, put } from "./dom.js";
import { OPERATORS, comparisons, fromRows, parseText, toRows, valueKind, valueWord } from "./filter-model.js";

const EMPTY_ROW = { key: "", type: "eq", text: "" };

/** The panel and what it holds. One instance. */
export class FilterPanel {
  /** panel: the element to fill; opener: the button that shows it; apply: called to search with the filter. */
  constructor(panel, opener, apply) {
    this.opener = opener;
    this.keys = new Set();
    this.applied = "";
    this.model = { join: "and", rows: [{ ...EMPTY_ROW }] };
    this.join = el(
      "select",
      { id: "filter-join", onchange: () => this.fromRows() },
      el("option", { value: "and" }, "all"),
      el("option", { value: "or" }, "any"),
    );
    this.rows = el("ol", { class: "rows" });
    this.nested = el(
      "p",
      { class: "fine", hidden: true },
      "This filter nests, which rows cannot show: edit it as JSON.",
    );
    this.text = el("textarea", {
      id: "filter-text",
      rows: 6,
      spellcheck: "false",
      "aria-describedby": "filter-message",
      oninput: () => this.fromText(),
    });
    this.message = el("p", { id: "filter-message", class: "wrong", "aria-live": "polite" });
    this.known = el("datalist", { id: "known-keys" });
    const add = el("button", { type: "button", class: "quiet", onclick: () => this.add() }, "+ condition");
    const clear = el(
      "button",
      {
        type: "button",
        class: "quiet",
        onclick: () => {
          this.set("");
          apply();
        },
      },
      "Clear",
    );
    this.builder = el(
      "div",
      { class: "builder" },
      el("p", { class: "joiner" }, el("label", {}, "Documents for which ", this.join, " of these hold:")),
      this.rows,
      el("p", { class: "buttons start" }, add),
    );
    put(
      panel,
      el(
        "div",
        { class: "halves" },
        el("div", {}, this.builder, this.nested),
        el("div", {}, el("label", { for: "filter-text", class: "above" }, "As JSON"), this.text),
      ),
      this.message,
      el("div", { class: "buttons" }, clear, el("button", { type: "submit", class: "main" }, "Apply")),
      this.known,
    );
    this.draw();
  }

  /** The filter's text as the address carries it; "" = none. */
  get value() {
    return this.text.value.trim();
  }

  /** Whether what is shown can be sent; if not, it says why and takes the focus. */
  check() {
    const { problems } = this.model ? fromRows(this.model) : { problems: [] };
    const { message } = parseText(this.text.value);
    if (!message && problems.length === 0) return true;
    this.opener.ariaExpanded === "true" || this.opener.click();
    this.message.textContent = message ?? problems[0].message;
    const row = message ? null : this.rows.children[problems[0].row];
    (row?.querySelector(problems[0].message.startsWith("Which metadata") ? ".key" : ".value") ?? this.text).focus();
    return false;
  }

  /** Show a filter given as text, as the one in use. */
  set(text) {
    this.applied = text;
    const { filter, message } = parseText(text);
    this.message.textContent = message ?? "";
    this.text.value = message || filter === null ? text : JSON.stringify(filter, null, 1);
    this.model = message ? this.model : toRows(filter);
    if (this.model && this.model.rows.length === 0) this.model.rows.push({ ...EMPTY_ROW });
    this.draw();
  }

  /** Learn which keys and values exist from what was found, to suggest them. */
  learn(hits) {
    const before = this.keys.size;
    for (const hit of hits)
      for (const key of Object.keys(hit.metadata ?? {})) if (this.keys.size < 200) this.keys.add(key);
    if (this.keys.size !== before)
      put(
        this.known,
        [...this.keys].sort().map((key) => el("option", { value: key })),
      );
  }

  /** Forget the keys of another collection. */
  forget() {
    this.keys.clear();
    put(this.known);
  }

  /** Add one condition to the filter in use, joined by "and". */
  with(key, value) {
    const { filter } = parseText(this.applied);
    const more = Array.isArray(value) ? { type: "contains_all", key, value } : { type: "eq", key, value };
    if (!filter) return JSON.stringify(more);
    const parts = filter.type === "and" ? filter.filters : [filter];
    return JSON.stringify({ type: "and", filters: [...parts, more] });
  }

  /** Mark the row that a refusal of the server names, by a place such as filter.filters[1].value. */
  refuse(problem) {
    const words = [problem.detail, ...problem.errors.map((each) => `${each.place} ${each.message}`)].join(" ");
    if (!/\bfilter\b/.test(words)) return;
    this.message.textContent = problem.detail;
    const row = /filters\[(\d+)\]|filters\.(\d+)/.exec(words);
    const place = row ? Number(row[1] ?? row[2]) : 0;
    this.rows.children[place]?.querySelector(".value")?.setAttribute("aria-invalid", "true");
  }

  add() {
    this.model ??= { join: "and", rows: [] };
    this.model.rows.push({ ...EMPTY_ROW });
    this.draw();
    this.rows.lastElementChild.querySelector(".key").focus();
  }

  remove(place) {
    this.model.rows.splice(place, 1);
    if (this.model.rows.length === 0) this.model.rows.push({ ...EMPTY_ROW });
    this.draw();
    this.fromRows();
    this.rows.children[Math.min(place, this.model.rows.length - 1)].querySelector(".key").focus();
  }

  fromRows() {
    this.model.join = this.join.value;
    const { filter } = fromRows(this.model);
    this.text.value = filter === null ? "" : JSON.stringify(filter, null, 1);
    this.message.textContent = "";
    this.label();
  }

  fromText() {
    const { filter, message } = parseText(this.text.value);
    this.message.textContent = message ?? "";
    if (!message) {
      this.model = toRows(filter);
      if (this.model && this.model.rows.length === 0) this.model.rows.push({ ...EMPTY_ROW });
      this.draw();
    }
    this.label();
  }

  draw() {
    this.builder.hidden = this.model === null;
    this.nested.hidden = this.model !== null;
    if (this.model) {
      this.join.value = this.model.join;
      put(
        this.rows,
        this.model.rows.map((row, place) => this.row(row, place)),
      );
    }
    this.label();
  }

  row(row, place) {
    const number = place + 1;
    const word = el("span", { class: "word", "aria-live": "polite" }, valueWord(row.type, row.text));
    const changed = (event, name) => {
      row[name] = event.target.value;
      event.target.removeAttribute("aria-invalid");
      word.textContent = valueWord(row.type, row.text);
      this.fromRows();
    };
    const key = el("input", {
      class: "key",
      value: row.key,
      list: "known-keys",
      placeholder: "key",
      spellcheck: "false",
      "aria-label": `Key of condition ${number}`,
      oninput: (event) => changed(event, "key"),
    });
    const type = el(
      "select",
      {
        "aria-label": `Operator of condition ${number}`,
        onchange: (event) => {
          const before = valueKind(row.type);
          row.type = event.target.value;
          if (valueKind(row.type) !== before)
            row.text = row.type === "exists" ? "true" : before === "choice" ? "" : row.text;
          this.draw();
          this.fromRows();
          this.rows.children[place].querySelector("select").focus();
        },
      },
      OPERATORS.map(([name, words]) => el("option", { value: name, selected: name === row.type }, words)),
    );
    const value =
      valueKind(row.type) === "choice"
        ? el(
            "select",
            {
              class: "value",
              "aria-label": `Value of condition ${number}`,
              onchange: (event) => changed(event, "text"),
            },
            el("option", { value: "true", selected: row.text !== "false" }, "yes"),
            el("option", { value: "false", selected: row.text === "false" }, "no"),
          )
        : el("input", {
            class: "value",
            value: row.text,
            dir: "auto",
            spellcheck: "false",
            placeholder: valueKind(row.type) === "list" ? "a, b, c" : "value",
            "aria-label": `Value of condition ${number}`,
            oninput: (event) => changed(event, "text"),
          });
    const remove = el(
      "button",
      { type: "button", class: "quiet", "aria-label": `Remove condition ${number}`, onclick: () => this.remove(place) },
      "×",
    );
    return el("li", {}, key, type, value, word, remove);
  }

  label() {
    const { filter } = parseText(this.applied);
    const size = filter ? comparisons(filter) : 0;
    const same = canonical(this.text.value) === canonical(this.applied);
    this.opener.textContent = `Filter${size ? ` · ${size}` : ""}${same ? "" : " · not applied"}`;
    this.opener.classList.toggle("on", size > 0);
  }
}

function canonical(text) {
  const { filter, message } = parseText(text);
  return message ? text : JSON.stringify(filter);
}
