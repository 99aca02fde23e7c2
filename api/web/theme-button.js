// The button that goes round the themes: as the system's, light, dark. theme.js applies what is remembered.

import { byId, remember, remembered } from "./dom.js";

const THEMES = ["auto", "light", "dark"];
const WORDS = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" };

function apply(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const button = byId("theme");
  button.textContent = WORDS[name];
  button.setAttribute("aria-label", `Theme: ${name}${name === "auto" ? ", as the system's" : ""}`);
  button.dataset.value = name;
}

/** Wire the button. */
export function setUpTheme() {
  const kept = remembered("theme");
  apply(THEMES.includes(kept) ? kept : "auto");
  byId("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(byId("theme").dataset.value) + 1) % THEMES.length];
    apply(next);
    remember("theme", next);
  });
}
