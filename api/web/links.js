// The lines between columns that show where the same hit stands in the one beside.

import { svg } from "./dom.js";

/** Draws over a grid of columns; redraws itself when the grid changes size. */
export class Links {
  constructor(grid) {
    this.grid = grid;
    this.picture = svg("svg", { class: "links", "aria-hidden": "true" });
    this.current = null;
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(grid);
    grid.append(this.picture);
    grid.addEventListener("pointerover", (event) => this.choose(event.target.closest?.(".hit")));
    grid.addEventListener("pointerleave", () => this.choose(null));
    grid.addEventListener("focusin", (event) => this.choose(event.target.closest(".hit")));
  }

  /** Stop watching; the grid is thrown away. */
  drop() {
    this.observer.disconnect();
  }

  choose(hit) {
    const key = hit?.dataset.key ?? null;
    if (key === this.current) return;
    this.current = key;
    for (const item of this.grid.querySelectorAll(".hit"))
      item.classList.toggle("twin", key !== null && item.dataset.key === key);
    for (const line of this.picture.children) line.classList.toggle("on", line.key === key);
  }

  draw() {
    const columns = [...this.grid.querySelectorAll(".column")];
    const origin = this.grid.getBoundingClientRect();
    const lines = [];
    columns.slice(1).forEach((right, place) => {
      const places = new Map([...right.querySelectorAll(".hit")].map((item) => [item.dataset.key, item]));
      for (const from of columns[place].querySelectorAll(".hit")) {
        const to = places.get(from.dataset.key);
        if (!to) continue;
        const [a, b] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
        const [x1, y1, x2, y2] = [
          a.right - origin.left,
          a.top + 20 - origin.top,
          b.left - origin.left,
          b.top + 20 - origin.top,
        ];
        const middle = (x1 + x2) / 2;
        const line = svg("path", { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}` });
        line.key = from.dataset.key;
        line.classList.toggle("on", line.key === this.current);
        lines.push(line);
      }
    });
    this.picture.replaceChildren(...lines);
  }
}
