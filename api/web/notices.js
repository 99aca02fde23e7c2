// What stands where results would be, when there is nothing to search, or nothing was asked yet.

import { Problem } from "./api.js";
import { el } from "./dom.js";
import { emptyBox, problemBox } from "./problem.js";
import { counted } from "./text.js";

const KEYS = [
  ["/", "search"],
  ["j", "next hit"],
  ["Enter", "open it"],
  ["?", "all keys"],
];

/** The address names a collection that is not there. */
export const unknown = (name) =>
  problemBox(
    new Problem({
      title: "No such collection",
      detail: `This server has no collection ${name}. Choose another one above.`,
    }),
  );

/** The server has no collection. */
export const nothingYet = () =>
  emptyBox(
    "No collection yet",
    "This server has nothing to search.",
    el(
      "p",
      {},
      "Build one with ",
      el("code", {}, "grapnel build"),
      " in the server's folder and start it again, or create one with ",
      el("code", {}, "POST /v1/collections"),
      " and reload this page.",
    ),
  );

/** Nothing was asked yet. collection: its Summary; a key that sees a part of it is not told how many documents. */
export const welcome = (collection) =>
  emptyBox(
    typeof collection.documents === "number"
      ? `${counted(collection.documents, "document")} in ${collection.name}`
      : collection.name,
    "Ask a question or type a few words. Choose several modes to see their rankings side by side.",
    el(
      "p",
      { class: "fine brief" },
      KEYS.map(([key, words]) => el("span", {}, el("kbd", {}, key), ` ${words}`)),
    ),
  );
