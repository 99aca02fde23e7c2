// Filters as rows (key, operator, value) joined by and/or, and as the server's JSON. Pure functions; deeper filters
// have no rows and are written as JSON.

export const OPERATORS = [
  ["eq", "is"],
  ["ne", "is not"],
  ["gt", ">"],
  ["gte", "≥"],
  ["lt", "<"],
  ["lte", "≤"],
  ["in", "is one of"],
  ["nin", "is none of"],
  ["contains_any", "contains any of"],
  ["contains_all", "contains all of"],
  ["exists", "exists"],
];
const LISTS = new Set(["in", "nin", "contains_any", "contains_all"]);
const NAMES = new Set(OPERATORS.map(([name]) => name));

/** What a value box of this operator takes: "list", "choice" (exists) or "scalar". */
export const valueKind = (type) => (LISTS.has(type) ? "list" : type === "exists" ? "choice" : "scalar");

const ROUNDED = "A browser cannot send a number of that size exactly.";
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g; // strings and numbers of JSON text

/** Whether JSON text holds a whole number that this browser would round, or a number it takes for infinite. */
function isRounded(json) {
  const numbers = (json.match(TOKENS) ?? []).filter((token) => !token.startsWith('"'));
  return numbers.some((each) => !(/[.eE]/.test(each) ? Number.isFinite : Number.isSafeInteger)(Number(each)));
}

const isScalar = (value) => value === null || ["string", "number", "boolean"].includes(typeof value);

/** Read a value as typed: 3, true, null and "quoted" are JSON; anything else is text. */
function readValue(text) {
  const trimmed = text.trim();
  try {
    const value = JSON.parse(trimmed);
    if (isScalar(value)) return value;
  } catch {
    /* plain text */
  }
  return trimmed;
}

/** What kind of value a typed text is, in one word; "" for nothing. */
export function valueWord(type, text) {
  if (text.trim() === "" || type === "exists") return "";
  if (LISTS.has(type)) return `list of ${readList(text).length}`;
  const value = readValue(text);
  return value === null ? "null" : { string: "text", number: "number", boolean: "yes/no" }[typeof value];
}

/** Read comma-separated values; one that holds a comma stands in double quotes. A JSON list is taken as it is. */
const readList = (text) => jsonList(text) ?? listed(text).map(readValue);

function jsonList(text) {
  try {
    const value = JSON.parse(text);
    if (Array.isArray(value) && value.every(isScalar)) return value;
  } catch {
    /* comma-separated */
  }
  return null;
}

function listed(text) {
  const parts = text.match(/\s*"(?:[^"\\]|\\.)*"\s*(?=,|$)|[^,]+/g) ?? [];
  return parts.map((part) => part.trim()).filter((part) => part !== "");
}

/** Whether a number typed as a value of this operator would be sent as another one. */
function isTypedRounded(type, text) {
  if (LISTS.has(type) && jsonList(text)) return isRounded(text);
  const parts = LISTS.has(type) ? listed(text) : [text.trim()];
  return parts.some((part) => typeof readValue(part) === "number" && isRounded(part));
}

/** Write a value so that `readValue` reads it back. */
function writeValue(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  return readValue(value) === value && value !== "" ? value : JSON.stringify(value);
}

const writeListed = (value) =>
  typeof value === "string" && /[,"]|^\[|^\s|\s$/.test(value) ? JSON.stringify(value) : writeValue(value);

/** The rows of a filter: {join, rows: [{key, type, text}]}; null when rows cannot say it. */
export function toRows(filter) {
  if (filter === null) return { join: "and", rows: [] };
  if (typeof filter !== "object" || Array.isArray(filter)) return null;
  const isGroup =
    (filter.type === "and" || filter.type === "or") && Array.isArray(filter.filters) && filter.filters.length > 0;
  const rows = (isGroup ? filter.filters : [filter]).map(toRow);
  return rows.includes(null) ? null : { join: isGroup ? filter.type : "and", rows };
}

function toRow(filter) {
  if (filter === null || typeof filter !== "object" || !NAMES.has(filter.type) || typeof filter.key !== "string")
    return null;
  if (Object.keys(filter).some((name) => !["type", "key", "value"].includes(name))) return null;
  const { type, key, value } = filter;
  if (type === "exists")
    return typeof (value ?? true) === "boolean" ? { key, type, text: String(value ?? true) } : null;
  if (LISTS.has(type))
    return Array.isArray(value) && value.every(isScalar)
      ? { key, type, text: value.map(writeListed).join(", ") }
      : null;
  return isScalar(value) && value !== undefined ? { key, type, text: writeValue(value) } : null;
}

/** The filter that rows say, and what is wrong: {filter, problems: [{row, message}]}. Empty rows say nothing. */
export function fromRows({ join, rows }) {
  const problems = [];
  const filters = [];
  rows.forEach(({ key, type, text }, row) => {
    if (key.trim() === "" && text.trim() === "") return;
    if (key.trim() === "") problems.push({ row, message: "Which metadata key?" });
    else if (type !== "exists" && text.trim() === "")
      problems.push({ row, message: 'Which value? For the empty text write "".' });
    else if (isTypedRounded(type, text)) problems.push({ row, message: ROUNDED });
    else
      filters.push({
        type,
        key: key.trim(),
        value: LISTS.has(type) ? readList(text) : type === "exists" ? text !== "false" : readValue(text),
      });
  });
  const filter = filters.length === 0 ? null : filters.length === 1 ? filters[0] : { type: join, filters };
  return { filter, problems };
}

/** Parse the JSON view: {filter} or {message}. Empty text is no filter. */
export function parseText(text) {
  if (text.trim() === "") return { filter: null };
  try {
    const filter = JSON.parse(text);
    if (isRounded(text)) return { message: ROUNDED };
    if (filter === null || (typeof filter === "object" && !Array.isArray(filter))) return { filter };
    return { message: 'A filter is a JSON object, such as {"type": "eq", "key": "lang", "value": "en"}.' };
  } catch (error) {
    return { message: `This is not JSON yet: ${error.message}` };
  }
}

/** How many comparisons a filter holds. */
export function comparisons(filter) {
  if (filter === null || typeof filter !== "object") return 0;
  if (Array.isArray(filter.filters)) return filter.filters.reduce((sum, each) => sum + comparisons(each), 0);
  return filter.filter ? comparisons(filter.filter) : 1;
}
