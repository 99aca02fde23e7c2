// Failures, in words.

import { el } from "./dom.js";

/** Whether the same call may succeed later: no answer, no key yet, too much at once, a fault of the server. */
const mayPass = (status) => status === 0 || status === 401 || status === 408 || status === 429 || status >= 500;

/** A box that says what went wrong. retry: what "Try again" does, offered where that can help; where: which part. */
export function problemBox(error, { retry = null, where = "" } = {}) {
  const places = (error.errors ?? []).map((each) =>
    el("li", {}, el("code", {}, el("bdi", {}, String(each.place ?? ""))), " ", String(each.message ?? "")),
  );
  const wait = error.retryAfter ? `The server asks to wait ${error.retryAfter} s.` : "";
  const words = [error.detail, wait].filter(Boolean).join(" ");
  return el(
    "div",
    { class: "problem", role: "alert" },
    el(
      "h3",
      {},
      where ? `${where}: ` : "",
      error.title ?? "Error",
      error.status ? el("span", { class: "fine" }, ` ${error.status}`) : null,
    ),
    words ? el("p", { dir: "auto" }, words) : null,
    places.length ? el("ul", {}, places) : null,
    error.requestId && error.status >= 500
      ? el("p", { class: "fine" }, "Request id: ", el("code", {}, error.requestId))
      : null,
    retry && mayPass(error.status ?? 0) ? el("button", { type: "button", onclick: retry }, "Try again") : null,
  );
}

/** A place with nothing in it, said kindly. */
export function emptyBox(title, ...lines) {
  return el(
    "div",
    { class: "empty" },
    el("h3", {}, title),
    lines.map((line) => (typeof line === "string" ? el("p", {}, line) : line)),
  );
}
