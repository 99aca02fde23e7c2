// Drives the page in a real browser, as test_api_web.py asks: node web_check.mjs SETTINGS, where SETTINGS is JSON
// {modules, chromium, url, keys: {admin, reader, tenant}, shots}. Prints one JSON object, check -> null or what failed.
// Every check has a context of its own; it fails too when the page logged an error, broke its Content-Security-Policy,
// opened a dialog of the browser, or asked any other host for anything.

import { createRequire } from "node:module";

import { checks as pageChecks } from "./web_check_page.mjs";
import { checks as searchChecks } from "./web_check_search.mjs";
import { DESK, answered } from "./web_check_tools.mjs";

const settings = JSON.parse(process.argv[2]);
const { chromium } = createRequire(`${settings.modules}/`)("playwright-core");
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const checks = { ...pageChecks, ...searchChecks };
const browser = await chromium.launch({ executablePath: settings.chromium, args: FLAGS });
const outcome = Object.fromEntries(Object.keys(checks).map((name) => [name, "not run"]));
const waiting = Object.entries(checks);

async function run(name, check) {
  const contexts = [];
  const wrong = [];
  let last;
  const open = async (
    address,
    { key = settings.keys.admin, dark = false, viewport = DESK, refused = false, permissions = [] } = {},
  ) => {
    const context = await browser.newContext({
      viewport,
      colorScheme: dark ? "dark" : "light",
      permissions,
      reducedMotion: "reduce",
    });
    contexts.push(context);
    if (key) await context.addInitScript((secret) => sessionStorage.setItem("grapnel.key", secret), key);
    await context.addInitScript(() =>
      addEventListener("securitypolicyviolation", (event) =>
        console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`),
      ),
    );
    const page = await context.newPage();
    last = page;
    page.setDefaultTimeout(20_000);
    page.on("request", (request) => {
      if (!request.url().startsWith(settings.url)) wrong.push(`asked for ${request.url()}`);
    });
    page.on("pageerror", (error) => wrong.push(`error ${error.message}`));
    page.on("dialog", (dialog) => {
      wrong.push(`dialog ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("console", (message) => {
      const isRefusal = /Failed to load resource/.test(message.text());
      if (message.type() === "error" && !(refused && isRefusal))
        wrong.push(`logged ${message.text()} ${message.location().url}`);
    });
    await page.goto(settings.url + address);
    if (key) await (address.includes("view=collection") ? page.waitForSelector(".page-head") : answered(page));
    return page;
  };
  try {
    await check(open, settings);
    outcome[name] = wrong.length ? wrong.join("\n") : null;
  } catch (error) {
    outcome[name] = [error.message, ...wrong].join("\n");
    if (settings.shots && last)
      await last.screenshot({ path: `${settings.shots}/${name.replaceAll(/\W+/g, "-")}.png` }).catch(() => {});
  }
  await Promise.all(contexts.map((context) => context.close()));
}

/** Checks mostly wait for the page: a few at a time take little more than one. */
async function work() {
  for (let next = waiting.shift(); next; next = waiting.shift()) await run(...next);
}
await Promise.all(Array.from({ length: 4 }, work));
await browser.close();
process.stdout.write(JSON.stringify(outcome));
