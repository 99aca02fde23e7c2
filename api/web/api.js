// Calls to the server. Every failure becomes a Problem that says in words what went wrong and what may help.

const KEY = "grapnel.key";
let askForKey = async () => false;
let asking = null;

/** A call that did not succeed; `status` 0 = no answer at all. */
export class Problem extends Error {
  constructor({ status = 0, title = "Error", detail = "", errors = [], retryAfter = null, requestId = "" }) {
    super(detail || title);
    Object.assign(this, { status, title, detail, errors, retryAfter, requestId });
  }
}

/** Set what shows the key dialog: an async function of a refused Problem that says whether a new key was entered. */
export function onUnauthenticated(ask) {
  askForKey = ask;
}

/** The key in use; "" = none. Lives in this tab's storage, or in memory where storage is forbidden. */
let memory = "";
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? memory;
  } catch {
    return memory;
  }
}

/** Use another key from now on; "" forgets it. */
export function setApiKey(key) {
  memory = key;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    /* memory holds it */
  }
}

/** Join path segments, each escaped. */
export const path = (...segments) => `/${segments.map(encodeURIComponent).join("/")}`;

/**
 * Call the server and return the JSON it answers; null for an empty answer. Asks for a key where the server wants one.
 * Throws Problem; an aborted call throws AbortError.
 */
export async function call(method, url, { body, signal } = {}) {
  for (;;) {
    const used = apiKey();
    try {
      return await once(method, url, body, signal, used);
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) throw error;
      // Another call may have been given a key meanwhile; several refused calls share one dialog.
      if (apiKey() !== used) continue;
      asking ??= askForKey(error).finally(() => {
        asking = null;
      });
      if (!(await asking)) throw error;
    }
  }
}

async function once(method, url, body, signal, key) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  let text;
  try {
    answer = await fetch(url, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "No answer", detail: "The server cannot be reached. Is it still running?" });
  }
  const value = parsed(text);
  if (answer.ok && (value !== undefined || text === "")) return value ?? null;
  throw problemOf(answer, value);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function problemOf(answer, value) {
  const told = value !== null && typeof value === "object" ? value : {};
  const retry = told.retry_after_s ?? Number(answer.headers.get("Retry-After") ?? NaN);
  return new Problem({
    status: answer.status,
    title: String(told.title ?? (answer.ok ? "Not JSON" : answer.statusText || "Error")),
    detail: String(
      told.detail ??
        (answer.ok
          ? "The server's answer is not JSON."
          : told.title
            ? ""
            : `The server answered with status ${answer.status}.`),
    ),
    errors: Array.isArray(told.errors) ? told.errors : [],
    retryAfter: Number.isFinite(retry) ? retry : null,
    requestId: String(told.request_id ?? answer.headers.get("X-Request-Id") ?? ""),
  });
}
