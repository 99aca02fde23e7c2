// The page: reads its state from the address, shows it, and turns what visitors do into new addresses.

import { setUpAccess } from "./access.js";
import { Problem, call } from "./api.js";
import { CollectionPage } from "./collection.js";
import { DocumentSheet } from "./document.js";
import { byId, el, put } from "./dom.js";
import { FilterPanel } from "./filter-panel.js";
import { parseText } from "./filter-model.js";
import { nothingYet, unknown, welcome } from "./notices.js";
import { OptionsPanel } from "./options.js";
import { problemBox } from "./problem.js";
import { Results } from "./results.js";
import { setUpShortcuts } from "./shortcuts.js";
import { MAX_COLUMNS, address, asks, read, searchKey } from "./state.js";
import { visible } from "./text.js";
import { setUpTheme } from "./theme-button.js";

const STARTING_MS = 1500; // between looks at a server that still loads its models

let state = read(location.search);
let collections = null; // until the server has said what it serves
let searched = null;
let filled = null; // the search that the form was filled from

const query = byId("query");
const filter = new FilterPanel(byId("filter"), byId("filter-opener"), () => submit());
const options = new OptionsPanel(byId("options"), byId("options-opener"));
const results = new Results(byId("results"), {
  found: (hits) => filter.learn(hits),
  refused: (problem) => filter.refuse(problem),
});
const page = new CollectionPage(byId("collection-view"), (summary) => {
  collections = collections.map((each) => (each.name === summary.name ? summary : each));
});
const sheet = new DocumentSheet(byId("document"), {
  closed: () => {
    if (state.doc === "") return;
    if (history.state?.opened)
      history.back(); // so that "forward" opens it again
    else go({ doc: "", at: "" }, { replace: true });
  },
  similar: (id) => address({ ...state, q: "", like: id, offset: 0, doc: "", at: "" }),
  only: (key, value) => address({ ...state, filter: filter.with(key, value), offset: 0, doc: "", at: "" }),
});
results.onAgain = () => show({ again: true });

// -- moving ------------------------------------------------------------------------------------------------------

/** Show the state with `changes`, as a new entry of the history or in place of the present one. */
function go(changes, { replace = false } = {}) {
  const next = { ...state, ...changes };
  const opened = next.doc !== "" && state.doc === "";
  history[replace ? "replaceState" : "pushState"]({ opened }, "", address(next));
  state = next;
  show();
}

addEventListener("popstate", () => {
  state = read(location.search);
  show();
});

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-go], a.brand, .top nav a");
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const next = read(new URL(link.href).search);
  const turned = next.offset !== state.offset;
  go(next);
  if (turned) scrollTo({ top: 0 });
});

// -- showing -----------------------------------------------------------------------------------------------------

/** The collection the state names: by name or alias; undefined where there is none. */
const chosen = () =>
  collections.find((each) => each.name === state.collection || each.aliases?.includes(state.collection));

/**
 * The modes to search in: those asked for that exist, else the collection's own choice. A key that sees only some of a
 * collection's documents is not told its modes: "" then lets the server choose.
 */
function modesOf(collection) {
  const asked = state.modes.filter((mode) => collection.modes?.includes(mode) ?? true);
  return asked.length ? asked : [collection.default_mode ?? ""];
}

/** Make the page show the state. again: search even if nothing changed. */
function show({ again = false } = {}) {
  if (collections === null) return;
  if (state.collection === "" && collections.length) state.collection = collections[0].name;
  const collection = chosen();
  const isSearch = state.view === "search";
  document.title = [isSearch ? state.q || (state.like && `like ${state.like}`) : "", state.collection, "grapnel"]
    .filter(Boolean)
    .join(" · ");
  byId("to-search").href = address({ ...state, view: "search", doc: "", at: "" });
  byId("to-collection").href = address({ ...state, view: "collection", doc: "", at: "" });
  byId("to-search").ariaCurrent = isSearch ? "page" : null;
  byId("to-collection").ariaCurrent = isSearch ? null : "page";
  choose(collection);
  byId("search-view").hidden = !isSearch || !collection;
  byId("collection-view").hidden = isSearch || !collection;
  if (!collection) {
    page.leave();
    sheet.hide();
    put(byId("page-problem"), collections.length ? unknown(state.collection) : nothingYet());
    return;
  }
  put(byId("page-problem"));
  if (isSearch) {
    page.leave();
    fill(collection);
    search(collection, again);
  } else page.show(collection.name);
  if (state.doc) sheet.show(state.collection, state.doc, state.at, () => results.hit(state.doc, state.at));
  else sheet.hide();
}

function choose(collection) {
  const select = byId("collection");
  const names = collections.map((each) =>
    el("option", { value: each.name }, each.state === "ready" ? each.name : `${each.name} (${each.state})`),
  );
  if (state.collection && !collections.some((each) => each.name === state.collection)) {
    names.push(
      el(
        "option",
        { value: state.collection },
        collection ? `${state.collection} → ${collection.name}` : `${state.collection} ?`,
      ),
    );
  }
  put(select, names);
  select.value = state.collection;
  select.disabled = names.length === 0;
}

/** Fill the form. What was typed and not sent yet stays, as long as the search stays the same. */
function fill(collection) {
  if (searchKey(state) !== filled) {
    filled = searchKey(state);
    query.value = state.q;
    options.set(state);
  }
  if (filter.applied !== state.filter) filter.set(state.filter);
  query.placeholder = state.like ? "Or ask something else" : "Ask, or type a few words";
  const like = byId("like");
  like.hidden = !state.like;
  put(
    like,
    state.like
      ? [
          "like ",
          el("bdi", { title: state.like }, visible(state.like)),
          el(
            "button",
            {
              type: "button",
              "aria-label": "Stop searching for similar documents",
              onclick: () => go({ like: "", offset: 0 }),
            },
            "×",
          ),
        ]
      : null,
  );
  const modes = modesOf(collection);
  byId("modes").closest("fieldset").hidden = !collection.modes;
  const full = modes.length >= MAX_COLUMNS;
  put(
    byId("modes"),
    (collection.modes ?? []).map((mode) => {
      const on = modes.includes(mode);
      const onlyOne = on && modes.length === 1;
      return el(
        "label",
        {
          class: "choice",
          title: onlyOne ? "One mode has to stay" : full && !on ? `At most ${MAX_COLUMNS} side by side` : null,
        },
        el("input", {
          type: "checkbox",
          value: mode,
          checked: on,
          disabled: full && !on,
          onchange: (event) => toggleMode(collection, mode, event.target),
        }),
        mode,
      );
    }),
  );
}

function toggleMode(collection, mode, box) {
  const modes = modesOf(collection);
  const next = box.checked ? [...modes, mode] : modes.filter((each) => each !== mode);
  if (next.length === 0 || !submit({ modes: next.length === 1 && next[0] === collection.default_mode ? [] : next })) {
    box.checked = !box.checked; // one mode has to stay, and a filter that cannot be sent comes first
    return;
  }
  byId("modes")
    .querySelector(`input[value="${CSS.escape(mode)}"]`)
    ?.focus();
}

async function search(collection, again) {
  const key = searchKey(state);
  if (key === searched && !again) return;
  searched = key;
  if (collection.state === "failed") {
    results.say(
      problemBox(
        new Problem({
          title: `${collection.name} cannot be searched`,
          detail: collection.error ?? "It could not be opened; the server's log says why.",
        }),
      ),
    );
    return;
  }
  if (!asks(state)) {
    results.say(welcome(collection));
    return;
  }
  const parsed = parseText(state.filter);
  if (parsed.message) {
    results.say(
      problemBox(new Problem({ title: "The filter in this address cannot be read", detail: parsed.message })),
    );
    return;
  }
  await results.run(state, modesOf(collection), parsed.filter);
  sheet.mark(results.hit(state.doc, state.at));
}

// -- what visitors do --------------------------------------------------------------------------------------------

/** Search with everything in the form, and `more`; return whether the form can be sent. */
function submit(more = {}) {
  if (!filter.check()) return false;
  const changes = {
    ...more,
    q: query.value.trim(),
    filter: filter.value && compact(filter.value),
    ...options.value,
    offset: 0,
    doc: "",
    at: "",
  };
  if (changes.q) changes.like = "";
  filled = null; // to show the form as it was understood
  const before = searchKey(state);
  go(changes, { replace: searchKey({ ...state, ...changes }) === before });
  if (searchKey(state) === before && asks(state)) show({ again: true });
  return true;
}

const compact = (text) => {
  const { filter: value } = parseText(text);
  return value === null ? "" : JSON.stringify(value);
};

// The server says in words what it refuses; a browser's own hint in a closed panel would not show.
byId("search").noValidate = true;
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

byId("collection").addEventListener("change", (event) => {
  filter.forget();
  const next = collections.find((each) => each.name === event.target.value);
  go({
    collection: event.target.value,
    modes: state.modes.filter((mode) => next?.modes?.includes(mode)),
    like: "",
    offset: 0,
    doc: "",
    at: "",
  });
});

for (const name of ["filter", "options"]) {
  byId(`${name}-opener`).addEventListener("click", (event) => {
    const isOpen = event.currentTarget.ariaExpanded === "true";
    event.currentTarget.ariaExpanded = String(!isOpen);
    byId(name).hidden = isOpen;
    if (!isOpen) byId(name).querySelector("input")?.focus();
  });
  byId(name).addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    byId(`${name}-opener`).click();
    byId(`${name}-opener`).focus();
  });
}

setUpShortcuts({
  evidence: () => results.toggleEvidence(),
  next: () => document.querySelector(".pages:not([hidden]) a[rel=next]")?.click(),
  previous: () => document.querySelector(".pages:not([hidden]) a[rel=prev]")?.click(),
});

// -- beginning ---------------------------------------------------------------------------------------------------

/** Ask the server what there is, then show the state. */
async function begin() {
  put(byId("page-problem"), el("p", { class: "waiting" }, "Asking the server what it serves…"));
  try {
    collections = (await call("GET", "/v1/collections")).collections;
    searched = null;
    show();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const isStarting = error.status === 503;
    put(
      byId("page-problem"),
      isStarting
        ? el("p", { class: "waiting", role: "status" }, "The server is starting: trying again by itself…")
        : problemBox(error, { retry: begin }),
    );
    if (isStarting) setTimeout(begin, STARTING_MS);
    return;
  }
  try {
    const models = await call("GET", "/v1/models");
    options.offer(models.data.filter((model) => model.kind === "reranker").map((model) => model.id));
  } catch (error) {
    if (!(error instanceof Problem)) throw error; // without the list, a search just is not ranked again
  }
}

// A mistake of this page is shown too: a silent page helps nobody.
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") return;
  put(
    byId("page-problem"),
    problemBox(
      new Problem({ title: "The page made a mistake", detail: String(event.reason?.message ?? event.reason) }),
    ),
  );
});

setUpTheme();
setUpAccess(begin);
begin();
