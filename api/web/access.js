// The API key: asked for when the server wants one, kept in sessionStorage, forgotten on demand.

import { apiKey, onUnauthenticated, setApiKey } from "./api.js";
import { announce, byId } from "./dom.js";

const SENDABLE = /^[\x21-\x7e]+$/; // what an HTTP header carries

/** Wire the dialog and its button. changed: called after the visitor changed the key by the button. */
export function setUpAccess(changed) {
  const dialog = byId("key-dialog");
  const input = byId("key-input");
  let settle = null;

  const show = (why) =>
    new Promise((resolve) => {
      settle = resolve;
      byId("key-why").textContent = why;
      input.value = "";
      input.removeAttribute("aria-invalid");
      byId("key-forget").hidden = !apiKey();
      if (!dialog.open) dialog.showModal();
      input.focus();
    });

  const finish = (isNew) => {
    const resolve = settle;
    settle = null;
    dialog.close();
    label();
    resolve?.(isNew);
  };

  const label = () => {
    byId("key").textContent = apiKey() ? "Key ✓" : "Key";
    byId("key").setAttribute("aria-label", apiKey() ? "API key: in use" : "API key: none");
  };

  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = input.value.trim();
    if (!SENDABLE.test(key)) {
      input.setAttribute("aria-invalid", "true");
      byId("key-why").textContent =
        "A key has only letters, digits and signs of ASCII, without spaces. Paste it again.";
      input.focus();
      return;
    }
    setApiKey(key);
    finish(true);
  });
  byId("key-cancel").addEventListener("click", () => finish(false));
  byId("key-forget").addEventListener("click", () => {
    setApiKey("");
    announce("The key is forgotten.");
    finish(true);
  });
  dialog.addEventListener("close", () => settle && finish(false)); // Esc

  onUnauthenticated((problem) =>
    show(apiKey() ? `The server refused this key. ${problem.detail}` : "This server answers only to an API key."),
  );
  byId("key").addEventListener("click", async () => {
    if (await show(apiKey() ? "A key is in use in this tab." : "Only a server that was given keys asks for one."))
      changed();
  });
  label();
}
