"""The style sheet of every page this project writes: quiet, legible, light and dark."""

STYLE = """
:root {
  --paper: #fdfdfb; --ink: #1d2125; --soft: #5b636b; --rule: #d9dcdf; --panel: #f4f5f3;
  --right: #1f7a4d; --wrong: #b3382c; --link: #1f5fa8;
  --series-0: #1f5fa8; --series-1: #b85c00; --series-2: #1f7a4d; --series-3: #7b4ea3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e6e8ea; --soft: #a0a8b0; --rule: #363c42; --panel: #1d2125;
    --right: #5fc492; --wrong: #f08a7c; --link: #83b8f2;
    --series-0: #83b8f2; --series-1: #f0a860; --series-2: #5fc492; --series-3: #c3a0e6;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; font-weight: 650; margin: 0 0 .5rem; }
h2 {
  font-size: 1.2rem; line-height: 1.3; font-weight: 650; margin: 2.75rem 0 .5rem;
  padding-top: 1.25rem; border-top: 1px solid var(--rule);
}
h3 { font-size: 1rem; font-weight: 650; margin: 1.5rem 0 .25rem; }
p { max-width: 44rem; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
a { color: var(--link); }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.soft, figcaption, caption { color: var(--soft); }
.small { font-size: .875rem; }
.right { color: var(--right); }
.wrong { color: var(--wrong); }
img, svg { display: block; max-width: 100%; height: auto; }
figure { margin: 0; }

.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
caption { text-align: left; font-size: .875rem; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1rem .4rem 0; }
thead th { font-weight: 600; border-bottom: 1px solid var(--soft); vertical-align: bottom; }
tbody th { font-weight: 400; }
tbody tr { border-bottom: 1px solid var(--rule); }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
th:last-child, td:last-child { padding-right: 0; }
@media (max-width: 36rem) {
  main { padding-top: 1.5rem; }
  table { font-size: .8125rem; }
  th, td { padding-right: .5rem; }
}

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1.5rem 2rem; }
.chart svg { width: 100%; }
.chart figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: .875rem; }
.chart figcaption strong { color: var(--ink); font-weight: 600; }
.chart text { font-size: 12px; fill: var(--soft); }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
rect.series-0 { fill: var(--series-0); } rect.series-1 { fill: var(--series-1); }
rect.series-2 { fill: var(--series-2); } rect.series-3 { fill: var(--series-3); }
.legend span { margin-right: .75rem; white-space: nowrap; }
.key { display: inline-block; width: 1.1rem; height: .2rem; margin-right: .35rem;
  vertical-align: middle; border-radius: 1px; }
.series-0 { stroke: var(--series-0); } i.series-0 { background: var(--series-0); }
.series-1 { stroke: var(--series-1); } i.series-1 { background: var(--series-1); }
.series-2 { stroke: var(--series-2); } i.series-2 { background: var(--series-2); }
.series-3 { stroke: var(--series-3); } i.series-3 { background: var(--series-3); }

@media print {
  body { font-size: 11pt; } h2 { break-after: avoid; } figure { break-inside: avoid; }
}
"""
