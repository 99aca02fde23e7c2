// What holds for the whole page: where it comes from, who may use it, how it looks, what it says when things go wrong.

import assert from "node:assert/strict";

import { BOTH, PHONE, contrasts, texts } from "./web_check_tools.mjs";

export const checks = {
  "loads from this server alone, under a strict policy": async (open, settings) => {
    const page = await open("/");
    const answer = await page.request.get(settings.url);
    const policy = answer.headers()["content-security-policy"] ?? "";
    assert.match(policy, /default-src 'self'/);
    assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval|\*/);
    assert.match(await page.locator(".empty h3").innerText(), /^11 documents in otters$/);
    assert.equal(await page.locator("[style], script:not([src]), [onclick]").count(), 0);
  },

  "reaches everything by Tab, with a focus that shows": async (open) => {
    const page = await open("/?q=otters&k=2");
    await page.click("#filter-opener");
    await page.click("#options-opener");
    await page.locator("body").evaluate(() => document.activeElement.blur());
    const controls =
      "a[href], button:not([disabled]), input:not([disabled]), select:not([disabled]), textarea, summary";
    const expected = await page.locator(controls).evaluateAll((all) =>
      all
        .filter((each) => each.checkVisibility())
        .map((each, place) => {
          each.dataset.place = place;
          return place;
        }),
    );
    const reached = new Set();
    for (let turn = 0; turn < expected.length + 10; turn += 1) {
      await page.keyboard.press("Tab");
      const [place, shows] = await page.evaluate(() => {
        const here = document.activeElement;
        const visible = (node) => node && ["outlineStyle"].some((name) => getComputedStyle(node)[name] !== "none");
        return [here.dataset?.place, visible(here) || visible(here.closest("label")) || here.closest(".box") !== null];
      });
      if (place === undefined) continue;
      reached.add(Number(place));
      assert.ok(shows, `control ${place} shows no focus`);
    }
    assert.deepEqual(
      [...reached].sort((a, b) => a - b),
      expected,
    );
  },

  "has words for what is empty or missing": async (open, settings) => {
    const page = await open("/?mode=lexical&q=zzzzqqqq");
    assert.match(await page.locator(".empty").innerText(), /Nothing found/);
    await page.goto(
      `${settings.url}/?q=otters&filter=${encodeURIComponent('{"type":"eq","key":"kind","value":"none such"}')}`,
    );
    assert.match(await page.locator(".empty").innerText(), /Nothing passes the filter/);
    await page.getByRole("link", { name: "Search without the filter" }).click();
    await page.waitForSelector(".hit");
    await page.goto(`${settings.url}/?collection=nowhere&q=x`);
    assert.match(await page.locator(".problem").innerText(), /no collection nowhere/);
    await page.goto(`${settings.url}/?q=otters&doc=nowhere`);
    assert.match(await page.locator("#document .problem").innerText(), /no document of this id/);
  },

  "says when the server is gone, and tries again": async (open) => {
    const page = await open("/?q=otters", { refused: true });
    await page.route("**/search", (route) => route.abort());
    await page.locator("#query").press("Enter");
    await page.getByText("The server cannot be reached").waitFor();
    await page.unroute("**/search");
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await page.route("**/search", async (route) => {
      await held;
      await route.continue();
    });
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("Searching…").waitFor(); // in place of what went wrong before
    assert.equal(await page.locator(".problem").count(), 0);
    release();
    await page.waitForSelector(".hit");
  },

  "tries again what failed in one of the columns": async (open) => {
    const page = await open(`/?q=otters&${BOTH}`, { refused: true });
    let mayPass = false;
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await page.route("**/search", async (route) => {
      if (route.request().postDataJSON().mode !== "lexical") return route.continue();
      if (!mayPass) return route.abort();
      await held;
      return route.continue();
    });
    await page.locator("#query").press("Enter");
    await page.locator(".column .problem").waitFor();
    mayPass = true;
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator(".column").nth(1).getByText("Searching…").waitFor();
    assert.equal(await page.locator(".problem").count(), 0);
    release();
    await page.locator(".column").nth(1).locator(".hit").first().waitFor();
  },

  "waits in words for a server that starts": async (open, settings) => {
    const page = await open("/", { refused: true });
    const starting = { status: 503, json: { title: "Starting", detail: "models are being loaded: try again" } };
    await page.route("**/v1/collections", (route) => route.fulfill(starting));
    await page.goto(`${settings.url}/?q=otters`);
    const words = page.getByText("The server is starting: trying again by itself…");
    await words.waitFor();
    await page.getByRole("link", { name: "Collection", exact: true }).click();
    assert.ok(await words.isVisible(), "nobody knows yet that there is no collection");
    await page.unroute("**/v1/collections");
    await page.waitForSelector(".facts");
  },

  "names its parts to those who hear it": async (open) => {
    const page = await open("/?q=otters&doc=plain");
    await page.waitForSelector("#document .text");
    await page.getByRole("region", { name: "Document" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { level: 1, name: "Search" }).waitFor();
    assert.equal(await page.locator(".rank").first().textContent(), "Rank 1");
    for (const word of ["auto", "light", "dark"])
      await page.getByRole("button", { name: `Theme: ${word}` }).click(); // as it is labelled
    const generic = page.locator("span, div, p, b, i, code").and(page.locator("[aria-label]:not([role])"));
    assert.equal(await generic.count(), 0, "these take no name");
    await page.locator(".skip").focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  },

  "asks for a key where one is wanted, and keeps it in the tab": async (open, settings) => {
    const page = await open("/?q=otters", { key: null, refused: true });
    await page.waitForSelector("#key-dialog[open]");
    await page.locator("#key-input").fill("gk_wrong");
    await page.keyboard.press("Enter");
    await page.getByText("refused this key").waitFor();
    await page.locator("#key-input").fill(settings.keys.reader);
    await page.keyboard.press("Enter");
    await page.waitForSelector(".hit");
    assert.equal(await page.evaluate(() => sessionStorage.getItem("grapnel.key")), settings.keys.reader);
    assert.equal(await page.evaluate(() => JSON.stringify(localStorage)), "{}");
    assert.equal(page.url().includes(settings.keys.reader), false);
    await page.reload();
    await page.waitForSelector(".hit");
    await page.goto(`${settings.url}/?collection=otters&view=collection`);
    await page.getByRole("button", { name: "Compact now" }).click();
    await page.getByText("Compaction did not start").waitFor();
  },

  "serves a key that sees a part of the documents": async (open, settings) => {
    const page = await open("/?collection=otters&q=otters&k=20", { key: settings.keys.tenant, refused: true });
    await page.waitForSelector(".hit");
    assert.equal(await page.locator(".hit").count(), 2, "the two documents of kind rtl");
    await page.getByRole("link", { name: "Collection", exact: true }).click();
    await page.getByText("sees only some of its documents").waitFor();
  },

  "shows a collection and follows its compaction": async (open) => {
    const page = await open("/?collection=otters&view=collection");
    await page.waitForSelector(".facts");
    const fact = async (name) =>
      (await page.locator(".facts > div", { hasText: name }).first().innerText()).split("\n").at(-1).trim();
    assert.equal(await fact("documents"), "11");
    assert.deepEqual(await texts(page.locator(".card h3")), ["dense dense", "lexical lexical"]);
    assert.match(await page.locator(".card").first().innerText(), /encoder\s+hashing/);
    assert.match(await page.locator(".legend").innerText(), /1 fresh/);
    await page.getByRole("button", { name: "Compact now" }).click();
    await page.getByText("Compaction done").first().waitFor();
    assert.equal(await fact("generation"), "2");
    assert.match(await page.locator(".legend").innerText(), /0 fresh/);
    assert.match(await page.locator(".jobs").innerText(), /Compaction.*done/s);
  },

  "tells a compaction that did not start from one it lost sight of": async (open) => {
    const page = await open("/?collection=seals&view=collection", { refused: true });
    const job = { id: "j1", kind: "compact", collection: "seals", state: "running", stage: "", done: 0, total: null };
    await page.route("**/compact", (route) => route.fulfill({ status: 202, json: { ...job, seconds: 0 } }));
    await page.route("**/v1/jobs/j1", (route) => route.abort());
    await page.getByRole("button", { name: "Compact now" }).click();
    await page.getByText("The compaction's progress is not known: No answer").waitFor();
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("button", { name: "Compact now" }).waitFor();
    assert.equal(await page.locator(".problem").count(), 0);
  },

  "remembers a theme": async (open) => {
    const page = await open("/", { dark: true });
    const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const dark = await paper();
    await page.click("#theme");
    const light = await paper();
    assert.notEqual(light, dark);
    await page.reload();
    assert.equal(await paper(), light);
    await page.click("#theme");
    assert.equal(await paper(), dark);
  },

  "fits a phone": async (open, settings) => {
    const page = await open("/?q=otters&k=20", { viewport: PHONE });
    for (const address of [
      `/?q=otters&k=20&${BOTH}`,
      "/?q=otters&k=20",
      `/?q=otters&doc=${"x".repeat(300)}`,
      "/?collection=otters&view=collection",
      "/",
    ]) {
      await page.goto(settings.url + address);
      await page.locator(".hit, .empty, .facts").first().waitFor();
      if (address.includes("doc=")) await page.waitForSelector("#document .text");
      for (const opener of await page.locator(".opener:visible").all())
        if (!address.includes("doc=")) await opener.click();
      const wide = await page.evaluate(() => [
        document.documentElement.scrollWidth,
        document.querySelector("#document").scrollWidth,
        innerWidth,
      ]);
      assert.ok(wide[0] <= wide[2] && wide[1] <= wide[2], `${address} is ${wide} wide`);
    }
  },

  "keeps its contrast in both themes": async (open, settings) => {
    for (const dark of [false, true]) {
      const page = await open(`/?q=otters&${BOTH}`, { dark });
      await page.keyboard.press("e");
      await page.click("#filter-opener");
      await page.click("#options-opener");
      const low = await page.evaluate(contrasts);
      assert.deepEqual(low, [], dark ? "dark" : "light");
      await page.goto(`${settings.url}/?collection=otters&view=collection`);
      await page.waitForSelector(".facts");
      assert.deepEqual(await page.evaluate(contrasts), []);
      await page.goto(`${settings.url}/?q=otters&doc=plain`);
      await page.waitForSelector("#document .text");
      assert.deepEqual(await page.evaluate(contrasts), []);
    }
  },
};
