// Searching, filtering, comparing modes and reading documents, as a visitor does it.

import assert from "node:assert/strict";

import { BOTH, answered, given, texts, titles } from "./web_check_tools.mjs";

export const checks = {
  "is used by keyboard alone": async (open) => {
    const page = await open("/");
    await page.keyboard.press("/");
    await page.keyboard.type("otters");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".hit");
    await page.waitForFunction(() => /hybrid: \d+ results in/.test(document.querySelector("#status").textContent));
    const found = await titles(page);
    const focused = () =>
      page.evaluate(() => document.activeElement.closest(".hit")?.querySelector(".title").innerText);
    await page.keyboard.press("ArrowDown");
    assert.equal(await focused(), found[0]);
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    await page.keyboard.press("k");
    assert.equal(await focused(), found[1]);
    await page.keyboard.press("k");
    await page.keyboard.press("k");
    assert.equal(await page.evaluate(() => document.activeElement.id), "query", "above the first hit is the query");
    assert.equal(await page.locator("#query").inputValue(), "otters", "and nothing is typed into it");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("j");
    assert.equal(await focused(), found[1]);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#document .text");
    assert.equal(await page.locator("#document-title").innerText(), found[1]);
    await page.keyboard.press("Escape");
    await page.waitForSelector("#document", { state: "hidden" });
    assert.equal(await focused(), found[1]);
    assert.equal(given(page).has("doc"), false);
    await page.keyboard.press("?");
    assert.ok(await page.locator("#help-dialog").isVisible());
    await page.keyboard.press("Escape");
    await page.keyboard.press("e");
    assert.equal(await page.locator("details.evidence[open]").count(), found.length);
  },

  "marks the matched words, beyond the basic plane too": async (open) => {
    const page = await open("/?mode=lexical&q=otters");
    const all = await texts(page.locator(".hit mark"));
    assert.ok(all.length >= 8);
    for (const word of all) assert.match(word, /^otters?$/i);
    await page.locator(".hit .title", { hasText: "🦦" }).click();
    await page.waitForSelector("#document mark");
    assert.deepEqual(await texts(page.locator("#document mark")), ["otter", "otter", "otters", "otter"]);
  },

  "shows modes side by side, the same hit linked": async (open) => {
    const page = await open(`/?q=otters&${BOTH}`);
    assert.deepEqual(await texts(page.locator(".column h2")), ["hybrid", "lexical"]);
    const [left, right] = [await titles(page, 0), await titles(page, 1)];
    for (const [place, title] of left.entries()) {
      const said = await page.locator(".column").nth(0).locator(".hit").nth(place).locator(".elsewhere").innerText();
      const rank = right.indexOf(title) + 1;
      if (rank) assert.match(said, new RegExp(`^lexical #${rank} `));
      else assert.match(said, /not on this page/);
    }
    await page.locator(".column").nth(0).locator(".hit").first().hover();
    assert.deepEqual(await texts(page.locator(".hit.twin .title")), [left[0], left[0]]);
    assert.equal(await page.locator(".links path.on").count(), 1);
    await page.locator(".column").nth(0).locator(".title").first().focus();
    await page.keyboard.press("l");
    assert.equal(
      await page.evaluate(() => document.activeElement.closest(".column").querySelector("h2").innerText),
      "lexical",
    );
    assert.equal(await page.evaluate(() => document.activeElement.innerText), left[0]);
    await page.getByRole("checkbox", { name: "dense" }).check();
    await page.waitForFunction(() => document.querySelectorAll(".column .hits").length === 3);
    assert.deepEqual(given(page).getAll("mode"), ["hybrid", "lexical", "dense"]);
  },

  "shows rank and score of every stage, and where the time went": async (open) => {
    const page = await open("/?q=otters");
    await page.keyboard.press("e");
    const table = page.locator(".hit").first().locator(".evidence table");
    assert.deepEqual((await texts(table.locator("tbody th"))).sort(), ["dense", "lexical"]);
    for (const row of await texts(table.locator("tbody tr"))) assert.match(row, /^\w+\s+(\d+|–)\s+[\d.]+/);
    const stages = await texts(page.locator(".timings tbody th"));
    for (const stage of ["dense", "lexical", "fusion"]) assert.ok(stages.includes(stage), `${stage} in ${stages}`);
    assert.match(await page.locator(".timings tfoot").innerText(), /total\s+[\d.]+ m?s/);
    const bars = await page
      .locator(".timings .bar")
      .evaluateAll((all) =>
        all.map((bar) => bar.getBoundingClientRect()).map(({ left, right, width }) => ({ left, right, width })),
      );
    for (const [place, bar] of bars.entries()) {
      assert.ok(bar.width > 0);
      if (place) assert.ok(bar.left >= bars[place - 1].left - 1, "a stage begins no earlier than the one before");
    }
  },

  "ranks again when asked to, and says so": async (open) => {
    const page = await open("/?q=otters");
    await page.click("#options-opener");
    await page.getByLabel("Rank again with").selectOption("similarity");
    await page.locator("#options").getByRole("button", { name: "Apply" }).click();
    await page.waitForFunction(() => document.querySelector(".column h2").innerText === "hybrid → similarity");
    assert.equal(given(page).get("rerank"), "similarity");
    const stages = await texts(page.locator(".hit").first().locator(".evidence summary b"));
    assert.equal(stages.at(-1), "1", "the reranker put it first");
    assert.match(await page.locator(".hit").first().locator(".evidence summary").innerText(), /hybrid.*similarity/s);
  },

  "filters by rows and by JSON, which follow each other": async (open) => {
    const page = await open("/?q=otters&k=20");
    await page.click("#filter-opener");
    await page.getByLabel("Key of condition 1").fill("kind");
    await page.getByLabel("Value of condition 1").fill("plain");
    assert.deepEqual(JSON.parse(await page.locator("#filter-text").inputValue()), {
      type: "eq",
      key: "kind",
      value: "plain",
    });
    await page.getByRole("button", { name: "+ condition" }).click();
    await page.getByLabel("Key of condition 2").fill("year");
    await page.getByLabel("Operator of condition 2").selectOption("gte");
    await page.getByLabel("Value of condition 2").fill("2020");
    await page.locator("#filter").getByRole("button", { name: "Apply" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".hit").length === 1);
    const both = {
      type: "and",
      filters: [
        { type: "eq", key: "kind", value: "plain" },
        { type: "gte", key: "year", value: 2020 },
      ],
    };
    assert.deepEqual(JSON.parse(given(page).get("filter")), both);
    assert.deepEqual(await titles(page), ["Otters"]);
    await page.locator("#filter-text").fill('{"type": "in", "key": "kind", "value": ["rtl", "bidi"]}');
    assert.equal(await page.getByLabel("Value of condition 1").inputValue(), "rtl, bidi");
    await page.locator("#query").press("Enter");
    await page.waitForFunction(() => document.querySelectorAll(".hit").length === 3);
    await page.locator("#filter-text").fill('{"type": ');
    assert.match(await page.locator("#filter-message").innerText(), /not JSON yet/);
    await page.locator("#query").press("Enter");
    assert.equal(await page.locator(".hit").count(), 3, "a broken filter is not sent");
    await page.locator("#filter-text").fill('{"type": "not", "filter": {"type": "exists", "key": "kind"}}');
    assert.ok(await page.getByText("edit it as JSON").isVisible());
    await page.locator("#query").press("Enter");
    await page.waitForFunction(() => !document.querySelector(".meta b")?.innerText.includes("kind"));
  },

  "keeps every filter that rows can say": async (open) => {
    const page = await open("/");
    const lost = await page.evaluate(async () => {
      const { OPERATORS, fromRows, toRows, valueKind } = await import("/web/filter-model.js");
      const scalars = [
        "",
        "a",
        " a ",
        "3",
        "3.5",
        "true",
        "null",
        '"',
        "a,b",
        'a"b',
        "[1]",
        "é\u202e🦦",
        "\\",
        0,
        -1.5,
        1e300,
        2 ** 53 - 1,
        true,
        false,
        null,
      ];
      const wrong = [];
      for (const [type] of OPERATORS) {
        const values = {
          scalar: scalars,
          list: [[], ...scalars.map((each) => [each]), scalars, [scalars[8], scalars[1]]],
          choice: [true, false],
        }[valueKind(type)];
        for (const value of values) {
          for (const filter of [
            { type, key: "k.a", value },
            {
              type: "or",
              filters: [
                { type, key: "k", value },
                { type: "eq", key: "z", value: 1 },
              ],
            },
          ]) {
            const { filter: back, problems } = fromRows(toRows(filter));
            // An empty list has no text: the page asks for a value.
            const isUntold = Array.isArray(value) && value.length === 0;
            if (isUntold ? problems.length !== 1 : JSON.stringify(back) !== JSON.stringify(filter))
              wrong.push([filter, back]);
          }
        }
      }
      return wrong;
    });
    assert.deepEqual(lost, []);
  },

  "refuses numbers that a browser would send as others": async (open) => {
    const page = await open("/");
    const [typed, sent] = await page.evaluate(async () => {
      const { fromRows, parseText } = await import("/web/filter-model.js");
      const row = ([type, text]) => fromRows({ join: "and", rows: [{ key: "k", type, text }] }).problems.length;
      return [
        [
          ["eq", "12345678901234567"],
          ["in", "1, 12345678901234567"],
          ["in", "[-12345678901234567]"],
          ["lt", "1e999"],
          ["eq", "9007199254740991"],
          ["eq", '"12345678901234567"'],
          ["eq", "room 12345678901234567"],
          ["in", '1.12345678901234567, 1e300, "12345678901234567", a 12345678901234567'],
        ].map(row),
        [
          '{"type": "eq", "key": "k", "value": 12345678901234567}',
          '{"type": "in", "key": "k", "value": ["a", 12345678901234567]}',
          '{"type": "eq", "key": "k", "value": "is \\"12345678901234567"}',
          '{"type": "eq", "key": "k", "value": 0.12345678901234567}',
        ].map((text) => parseText(text).message ?? ""),
      ];
    });
    assert.deepEqual(typed, [1, 1, 1, 1, 0, 0, 0, 0]);
    assert.match(sent[0], /cannot send a number of that size/);
    assert.equal(sent[1], sent[0]);
    assert.deepEqual(sent.slice(2), ["", ""]);
  },

  "keeps what was typed and not sent while documents open and close": async (open) => {
    const page = await open("/?q=otters");
    await page.click("#filter-opener");
    await page.getByLabel("Key of condition 1").fill("lang");
    await page.click("#options-opener");
    await page.getByLabel("Results a page").fill("7");
    await page.locator("#query").fill("rivers");
    await page.locator(".hit .title").first().click();
    await page.waitForSelector("#document .text");
    await page.keyboard.press("Escape");
    await page.waitForSelector("#document", { state: "hidden" });
    assert.equal(given(page).has("doc"), false);
    assert.equal(await page.getByLabel("Key of condition 1").inputValue(), "lang");
    assert.equal(await page.getByLabel("Results a page").inputValue(), "7");
    assert.equal(await page.locator("#query").inputValue(), "rivers");
    await page.getByLabel("Key of condition 1").fill("");
    await page.getByLabel("Results a page").fill("");
    await page.locator("#query").fill(" otters ");
    await page.locator("#query").press("Enter");
    await page.waitForFunction(() => document.querySelector("#query").value === "otters");
    assert.equal(await page.getByLabel("Results a page").inputValue(), "10", "what was sent is shown as it was read");
  },

  "says in words what the server refuses": async (open) => {
    const page = await open(
      `/?q=otters&filter=${encodeURIComponent('{"type":"gt","key":"year","value":null}')}&${BOTH}`,
      { refused: true },
    );
    assert.equal(await page.locator("#results .problem").count(), 1, "the same refusal of all modes is said once");
    assert.match(
      await page.locator("#results .problem").innerText(),
      /expected a number or a string, because gt compares by order/,
    );
    await page.click("#filter-opener");
    assert.equal(await page.getByLabel("Value of condition 1").getAttribute("aria-invalid"), "true");
  },

  "turns pages, and back again": async (open, settings) => {
    const page = await open("/?q=otters");
    await page.click("#options-opener");
    await page.getByLabel("Results a page").fill("3");
    await page.locator("#options").getByRole("button", { name: "Apply" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".hit").length === 3);
    const first = await titles(page);
    await page.getByRole("link", { name: "Next" }).click();
    await page.waitForFunction(() => document.querySelector(".rank")?.lastChild.data === "4");
    assert.equal(
      (await titles(page)).some((title) => first.includes(title)),
      false,
    );
    await page.goBack();
    await page.waitForFunction(() => document.querySelector(".rank")?.lastChild.data === "1");
    assert.deepEqual(await titles(page), first);
    await page.reload();
    await page.waitForSelector(".hit");
    assert.deepEqual(await titles(page), first);
    await page.goForward();
    await page.goto(`${settings.url}/?q=otters&offset=500`);
    assert.match(await page.locator(".empty").innerText(), /No more results/);
  },

  "opens hostile documents, which stay inert": async (open, settings) => {
    const page = await open("/?q=otters&k=20");
    for (const id of [
      "<script>document.title='owned'</script>",
      "a/../b?q=1#frag%20 ü",
      "..",
      "evil\u202egnp.exe",
      "x".repeat(300),
    ]) {
      await page.goto(`${settings.url}/?q=otters&k=20&doc=${encodeURIComponent(id)}`);
      await page.waitForSelector("#document .text");
      const shown = await page.locator("#document code.id").innerText();
      assert.equal(shown, id.replace("\u202e", "\\u202e"));
    }
    assert.equal(
      await page.locator("#results img, #results script, #document img, #document script, #document svg").count(),
      0,
    );
    assert.doesNotMatch(await page.title(), /owned/);
    await page.goto(`${settings.url}/?q=otters&doc=${encodeURIComponent("<script>document.title='owned'</script>")}`);
    await page.waitForSelector("#document .text");
    assert.match(
      await page.locator("#document .text").innerText(),
      /^<img src=x onerror="document.title='owned'"> otters & <b>bold<\/b>/,
    );
    assert.match(await page.locator("#document .metadata").innerText(), /javascript:alert\(1\)/);
    assert.equal(await page.locator('a[href^="javascript"]').count(), 0);
  },

  "marks the passage that was found in a long document": async (open) => {
    const page = await open("/?collection=seals&q=walrus&group=passage&k=3");
    await page.locator(".hit .title").first().click();
    await page.waitForSelector("#document .found");
    assert.match(await page.locator("#document .found").innerText(), /walrus/);
    const whole = await page.locator("#document .text").evaluate((node) => node.textContent);
    assert.match(whole, /^Paragraph 0 .*Paragraph 199 /s);
    assert.ok(
      await page.locator("#document .found").evaluate((node) => {
        const { top, bottom } = node.getBoundingClientRect();
        return top < innerHeight && bottom > 0;
      }),
      "it is scrolled to",
    );
    await page.reload();
    await page.waitForSelector("#document .found mark");
    assert.match(await page.locator("#document .found").innerText(), /walrus/);
  },

  "counts a long text in characters, however they are stored": async (open, settings) => {
    const page = await open("/");
    const found = { id: "long", text: "🦦".repeat(160_000), metadata: {} };
    await page.route("**/documents/get", (route) => route.fulfill({ json: { documents: [found] } }));
    await page.goto(`${settings.url}/?q=otters&doc=long`);
    await page.getByRole("button", { name: "Show all 160,000 characters" }).waitFor();
    await page.getByText("160,000 characters", { exact: true }).waitFor();
  },

  "shows a document that is asked for again before its closing is through": async (open) => {
    const page = await open("/");
    const [closings, text] = await page.evaluate(async () => {
      const { DocumentSheet } = await import("/web/document.js");
      const dialog = document.createElement("dialog");
      document.body.append(dialog);
      let told = 0;
      const sheet = new DocumentSheet(dialog, { closed: () => (told += 1), similar: () => "/", only: () => "/" });
      const show = () => sheet.show("otters", "plain", "", () => null);
      await show();
      sheet.hide();
      await show();
      return [told, dialog.querySelector(".text")?.innerText];
    });
    assert.equal(text, "A plain document on otters.");
    assert.equal(closings, 0);
  },

  "finds more like a document, and filters by its metadata": async (open, settings) => {
    const page = await open("/?q=otters&doc=plain");
    await page.waitForSelector("#document .text");
    await page.getByRole("link", { name: "Filter by year" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".hit").length === 1);
    assert.deepEqual(JSON.parse(given(page).get("filter")), { type: "eq", key: "year", value: 2020 });
    await page.goto(`${settings.url}/?q=otters&doc=plain`);
    await page.getByRole("link", { name: "More like this" }).click();
    await answered(page); // until then the hits of the search before stay in sight
    assert.equal(given(page).get("like"), "plain");
    assert.equal((await titles(page)).includes("Otters"), false, "a document is not like itself");
    await page.getByRole("button", { name: "Stop searching for similar" }).click();
    await page.waitForSelector(".empty");
  },

  "copies an id as it is": async (open) => {
    const page = await open(`/?q=otters&doc=${encodeURIComponent("evil\u202egnp.exe")}`, {
      permissions: ["clipboard-read", "clipboard-write"],
    });
    await page.getByRole("button", { name: "Copy id" }).click();
    await page.getByRole("button", { name: "Copied" }).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "evil\u202egnp.exe");
  },
};
