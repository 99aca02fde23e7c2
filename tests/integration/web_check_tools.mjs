// What the checks of the page share.

export const BOTH = "mode=hybrid&mode=lexical";
export const DESK = { width: 1280, height: 900 };
export const PHONE = { width: 360, height: 740 };

/** The texts of all elements a locator finds. */
export const texts = (locator) => locator.allInnerTexts();

/** The titles of the hits in one column. */
export const titles = (page, column = 0) => texts(page.locator(".column").nth(column).locator(".hit .title"));

/** Wait until every mode has answered. */
export const answered = (page) =>
  page.waitForFunction(
    () => document.querySelector("#results")?.childElementCount && !document.querySelector("#results [aria-busy]"),
  );

/** What the page's address asks for. */
export const given = (page) => new URL(page.url()).searchParams;

/** In the page: every visible text whose contrast with what is behind it is below 4.5:1 (WCAG 2.2, 1.4.3). */
export function contrasts() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const flat = (colors) => {
    // painted over each other, as the browser would
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) {
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((each) =>
      each / 255 <= 0.04045 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (
      !walker.currentNode.textContent.trim() ||
      !node.checkVisibility() ||
      node.closest(":disabled, .hidden-text, .skip, option")
    )
      continue;
    const behind = [];
    for (let each = node; each; each = each.parentElement) behind.unshift(getComputedStyle(each).backgroundColor);
    const [back, front] = [flat(behind), flat([...behind, getComputedStyle(node).color])].map(light);
    const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    if (ratio < 4.5)
      low.push([walker.currentNode.textContent.trim().slice(0, 30), node.className, Math.round(ratio * 100) / 100]);
  }
  return low;
}
