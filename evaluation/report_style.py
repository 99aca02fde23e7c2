"""The stylesheet of the report: light and dark by the reader's preference, light on paper, system fonts only."""

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --paper: light-dark(#fbfaf7, #15181b);
  --raised: light-dark(#ffffff, #1c2024);
  --ink: light-dark(#1e1d1b, #e7e4de);
  --soft: light-dark(#5e5a53, #a8a39a);
  --line: light-dark(#e2ded5, #2d3338);
  --accent: light-dark(#0b6175, #74c6d8);
  --total: light-dark(#6b6f76, #8b929b);
  --loss: light-dark(#b5472f, #e8826a);
  --gain: light-dark(#1f7a5c, #58bd96);
  --s0: light-dark(#0b6175, #74c6d8);
  --s1: light-dark(#b5472f, #e8826a);
  --s2: light-dark(#6a4fa3, #b39ae6);
  --s3: light-dark(#7d6608, #d3b648);
  --s4: light-dark(#1f7a5c, #58bd96);
  --s5: light-dark(#8f3a6b, #e08dbd);
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
*, ::before, ::after { box-sizing: border-box; }
html { font: 15px/1.5 var(--sans); background: var(--paper); color: var(--ink); }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; font-weight: 600; letter-spacing: -.01em; margin: 0; }
h2 { font-size: 1.2rem; font-weight: 600; margin: 2.75rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; font-weight: 600; margin: 1.5rem 0 .25rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: var(--accent); text-underline-offset: .2em; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0 0; }
.findings { max-width: 52rem; padding: .75rem 1.25rem .75rem 2.25rem; background: var(--raised);
  border-left: 3px solid var(--accent); }
.findings li { margin: .35rem 0; }
.fine { color: var(--soft); font-size: .87rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: .5rem 2rem; }
figure { margin: .75rem 0; break-inside: avoid; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .25rem; }
svg { display: block; width: 100%; height: auto; min-width: 31rem; max-width: 44rem; overflow: visible; }
svg.broad { min-width: 46rem; max-width: 68rem; }
svg text { font: 12px var(--sans); fill: var(--ink); font-variant-numeric: tabular-nums; }
svg text.soft { fill: var(--soft); font-size: 11px; }
svg text.small { fill: var(--ink); font-size: 10px; }
svg text.value { font-weight: 600; }
svg .total { fill: var(--total); }
svg .loss { fill: var(--loss); }
svg .gain { fill: var(--gain); }
svg .grid { stroke: var(--line); stroke-width: 1; fill: none; }
svg .whisker { stroke: var(--ink); stroke-width: 1.2; fill: none; opacity: .75; }
svg .faint { opacity: .3; }
svg .join { stroke: var(--soft); stroke-width: 1; fill: none; }
svg .level { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 4 3; fill: none; }
svg .front { stroke: var(--soft); stroke-width: 1.2; fill: none; }
svg .cell { stroke: var(--line); }
svg .mark { stroke: var(--paper); stroke-width: 1; }
svg .s0 { fill: var(--s0); } svg .s1 { fill: var(--s1); } svg .s2 { fill: var(--s2); }
svg .s3 { fill: var(--s3); } svg .s4 { fill: var(--s4); } svg .s5 { fill: var(--s5); }
svg .s4 .stroked { stroke: var(--s4); stroke-width: 2.5; fill: none; }
svg .s5 .stroked { stroke: var(--s5); stroke-width: 2.5; fill: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
caption { text-align: start; color: var(--soft); padding-bottom: .25rem; }
th, td { padding: .2rem .8rem .2rem 0; text-align: start; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { font-weight: 400; color: var(--soft); }
tbody th { font-weight: 400; white-space: nowrap; }
.number { text-align: end; }
td.words { white-space: nowrap; }
.text { min-width: 16rem; max-width: 36rem; }
summary { cursor: pointer; color: var(--soft); font-size: .87rem; }
pre { overflow-x: auto; background: var(--raised); padding: .75rem 1rem; font-size: .85rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print {
  :root { color-scheme: light; print-color-adjust: exact; }
  html { font-size: 10.5pt; background: none; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3, caption, figcaption { break-after: avoid; }
  tr { break-inside: avoid; }
  table { font-size: 7.5pt; }
  th, td { padding-right: .4rem; }
  .scroll { overflow: visible; }
  svg, svg.broad { min-width: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
