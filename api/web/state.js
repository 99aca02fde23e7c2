// The state of the page is its address: what is shown follows from it, so links, reload and back/forward just work.

export const MAX_COLUMNS = 3;

/** Options of a search: name in the address -> [default, how its text is read]. */
const whole = (text) => (/^\d{1,9}$/.test(text) ? Number(text) : null);
const number = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null);
const OPTIONS = {
  k: { initial: 10, read: whole },
  offset: { initial: 0, read: whole },
  group: { initial: "document", read: (text) => (text === "passage" ? text : null) },
  diversity: { initial: 0, read: number },
  min_score: { initial: null, read: number },
  depth: { initial: null, read: whole },
  rerank: { initial: "", read: (text) => text },
  rerank_depth: { initial: 50, read: whole },
};

const TEXTS = ["collection", "q", "like", "filter", "doc", "at"];

/** The state of a page nobody has touched. */
export function initial() {
  const state = { view: "search", modes: [] };
  for (const name of TEXTS) state[name] = "";
  for (const [name, option] of Object.entries(OPTIONS)) state[name] = option.initial;
  return state;
}

/** Read an address's query string; what it gets wrong is as if it were absent. */
export function read(queryString) {
  const given = new URLSearchParams(queryString);
  const state = initial();
  if (given.get("view") === "collection") state.view = "collection";
  for (const name of TEXTS) state[name] = given.get(name) ?? "";
  for (const [name, option] of Object.entries(OPTIONS)) {
    const value = given.has(name) ? option.read(given.get(name)) : null;
    if (value !== null) state[name] = value;
  }
  state.modes = [...new Set(given.getAll("mode"))].slice(0, MAX_COLUMNS);
  return state;
}

/** The address of a state; what is as by default is left out. */
export function address(state) {
  const given = new URLSearchParams();
  if (state.view !== "search") given.set("view", state.view);
  for (const name of TEXTS) if (state[name] !== "") given.set(name, state[name]);
  for (const mode of state.modes) given.append("mode", mode);
  for (const [name, option] of Object.entries(OPTIONS)) {
    if (state[name] !== option.initial) given.set(name, String(state[name]));
  }
  const text = given.toString();
  return text ? `/?${text}` : "/";
}

/** What decides the results; equal strings need no new search. */
export function searchKey(state) {
  return address({ ...state, doc: "", at: "" });
}

/** How many options differ from their defaults; paging is none. */
export function changedOptions(state) {
  return Object.entries(OPTIONS).filter(
    ([name, option]) => !["offset", "rerank_depth"].includes(name) && state[name] !== option.initial,
  ).length;
}

/** Whether there is anything to search for. */
export const asks = (state) => state.q.trim() !== "" || state.like !== "";
