// Opens a report of `grapnel bench` in a real browser: node report_check.mjs SETTINGS, where SETTINGS is JSON
// {modules, chromium, page, shots}. Prints one JSON object: what is wrong, by width and colour scheme, as lists of
// sentences. With shots, a folder, it takes pictures of the whole page as well.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const settings = JSON.parse(process.argv[2]);
const { chromium } = createRequire(`${settings.modules}/`)("playwright-core");
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
const WIDTHS = { wide: 1280, narrow: 390 };
const address = pathToFileURL(settings.page).href;

// What a reader would see: runs in the page.
function seen() {
  const wrong = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth)
    wrong.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
  const name = (element) => element.closest("figure")?.querySelector("figcaption")?.textContent;
  for (const plot of document.querySelectorAll("svg")) {
    const frame = plot.getBoundingClientRect();
    const scale = frame.width / plot.viewBox.baseVal.width;
    const boxes = [...plot.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
    for (const [text, box] of boxes)
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1)
        wrong.push(`${name(plot)}: "${text.textContent}" leaves the plot`);
    for (const [place, [first, a]] of boxes.entries())
      for (const [second, b] of boxes.slice(place + 1)) {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > -3 * scale && down > 4 * scale)
          wrong.push(`${name(plot)}: "${first.textContent}" touches "${second.textContent}"`);
      }
  }
  for (const cell of document.querySelectorAll("figure, table, p, pre, h1, h2, li")) {
    const box = cell.getBoundingClientRect();
    if (box.right > root.clientWidth + 1 && !cell.closest(".scroll, pre"))
      wrong.push(`${cell.tagName} "${cell.textContent.slice(0, 40)}" leaves the window`);
  }
  return wrong;
}

// Tab reaches every link, table and fold, shows where it is, and leaves the page at the end.
async function tabbed(page) {
  const wrong = [];
  const expected = await page.locator("a, summary, [tabindex]").count();
  const reached = new Set();
  for (let step = 0; step < expected + 1; step++) {
    await page.keyboard.press("Tab");
    const found = await page.evaluate(() => {
      const element = document.activeElement;
      if (element === document.body) return null;
      element.dataset.place ??= String(Math.random());
      const style = getComputedStyle(element);
      return [element.dataset.place, element.tagName, style.outlineStyle !== "none" && style.outlineWidth !== "0px"];
    });
    if (found === null) break;
    reached.add(found[0]);
    if (!found[2]) wrong.push(`focus does not show on ${found[1]}`);
  }
  if (reached.size !== expected) wrong.push(`Tab reaches ${reached.size} of ${expected} links, tables and folds`);
  return wrong;
}

const browser = await chromium.launch({ executablePath: settings.chromium, args: FLAGS });
const outcome = {};
for (const [width, pixels] of Object.entries(WIDTHS))
  for (const colorScheme of ["light", "dark"]) {
    const context = await browser.newContext({ viewport: { width: pixels, height: 900 }, colorScheme });
    const page = await context.newPage();
    const wrong = [];
    page.on("request", (request) => {
      if (request.url().split("#")[0] !== address) wrong.push(`asked for ${request.url()}`);
    });
    page.on("pageerror", (error) => wrong.push(`error ${error.message}`));
    page.on("console", (message) => wrong.push(`logged ${message.text()}`));
    await page.goto(address);
    if (settings.shots) await page.screenshot({ path: `${settings.shots}/${width}-${colorScheme}.png`, fullPage: true });
    await page.evaluate(() => document.querySelectorAll("details").forEach((fold) => (fold.open = true)));
    wrong.push(...(await page.evaluate(seen)));
    if (colorScheme === "light") wrong.push(...(await tabbed(page)));
    outcome[`${width} ${colorScheme}`] = wrong;
    await context.close();
  }
await browser.close();
console.log(JSON.stringify(outcome));
