"""The style sheet of the page: light and dark, desktop, phone and paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f5f6f8; --card: #ffffff; --ink: #16202b; --muted: #566472; --line: #dfe4ea; --soft: #eef1f5;
  --accent: #0067a8; --accent-soft: #d9e8f4; --good: #00704f; --bad: #b3441a;
  --shadow: 0 1px 2px rgb(16 32 48 / .06), 0 6px 20px rgb(16 32 48 / .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #10151b; --card: #19212a; --ink: #e8edf2; --muted: #a0adba; --line: #2d3844; --soft: #222c37;
    --accent: #6cb8ee; --accent-soft: #24405a; --good: #56c9a0; --bad: #f0936b;
    --shadow: none;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, Inter, "Liberation Sans", Arial, sans-serif;
}
.wrap { max-width: 68rem; margin: 0 auto; padding: 0 1.5rem; }
a { color: var(--accent); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: .5rem 1rem; border-radius: .5rem; z-index: 1; }

.hero { padding: 3.5rem 0 0; }
.overline {
  margin: 0 0 .6rem; color: var(--accent); font-size: .8rem; font-weight: 650; letter-spacing: .09em;
  text-transform: uppercase;
}
h1 {
  margin: 0; font-size: clamp(1.8rem, 1.2rem + 2.6vw, 2.9rem); line-height: 1.12; letter-spacing: -.022em;
  text-wrap: balance; overflow-wrap: anywhere;
}
.lede { margin: 1.1rem 0 0; max-width: 52rem; font-size: clamp(1.06rem, 1rem + .4vw, 1.28rem); line-height: 1.55; }
.when { margin: .9rem 0 0; color: var(--muted); font-size: .9rem; }

.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13.5rem, 1fr)); gap: 1rem; margin: 2.2rem 0 0;
  padding: 0; list-style: none; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1.15rem 1.25rem 1.2rem;
  box-shadow: var(--shadow); display: flex; flex-direction: column; }
.card h2 { margin: 0; font-size: .92rem; font-weight: 600; color: var(--muted); letter-spacing: 0; }
.card .value { margin: .15rem 0 0; font-size: 2.55rem; color: var(--ink); font-weight: 680; line-height: 1.2;
  letter-spacing: -.03em; font-variant-numeric: tabular-nums; }
.card .value small { font-size: .5em; font-weight: 600; color: var(--muted); letter-spacing: 0; margin-left: .18em; }
.meter { position: relative; height: .42rem; margin: .65rem 0 .8rem; border-radius: 1rem; background: var(--soft); }
.meter i { position: absolute; inset: 0 auto 0 0; border-radius: 1rem; background: var(--accent); }
.meter b { position: absolute; top: -.2rem; bottom: -.2rem; width: .2rem; margin-left: -.1rem; border-radius: 1rem;
  background: var(--ink); box-shadow: 0 0 0 2px var(--card); }
.card p { margin: 0; font-size: .88rem; line-height: 1.45; color: var(--muted); }
.card .twin { margin-top: .35rem; color: var(--ink); }

.contents { margin: 2.2rem 0 0; border-top: 1px solid var(--line); padding-top: 1rem; }
.contents ul { display: flex; flex-wrap: wrap; gap: .35rem 1.3rem; margin: 0; padding: 0; list-style: none;
  font-size: .92rem; }
.contents a { text-decoration: none; display: inline-block; padding: .2rem 0; }
.contents a:hover { text-decoration: underline; }

.part { margin: 2.2rem 0 0; background: var(--card); border: 1px solid var(--line); border-radius: .9rem;
  padding: 1.7rem 1.9rem 1.9rem; box-shadow: var(--shadow); scroll-margin-top: 1rem; }
.part > h2 { margin: 0 0 .6rem; font-size: 1.4rem; line-height: 1.25; letter-spacing: -.012em;
  overflow-wrap: anywhere; }
.part > p { margin: .5rem 0; max-width: 46rem; overflow-wrap: break-word; }
.part > h3 { margin: 1.6rem 0 .5rem; font-size: 1.05rem; }

.scroll { overflow-x: auto; margin: 1.1rem 0 0; border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .94rem; font-variant-numeric: tabular-nums; }
table.narrow { width: auto; min-width: min(24rem, 100%); }
caption { text-align: left; padding: 0 0 .5rem; color: var(--muted); font-size: .9rem; }
th, td { padding: .5rem .9rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: .2rem; }
th:last-child, td:last-child { padding-right: .2rem; }
thead th { font-size: .82rem; font-weight: 600; color: var(--muted); white-space: nowrap; vertical-align: bottom; }
tbody th { font-weight: 500; }
tbody tr:last-child > * { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; }
td small, th small { display: block; font-size: .84rem; font-weight: 400; color: var(--muted); }
.good { color: var(--good); } .bad { color: var(--bad); }
code, pre { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: .87em; }
code { overflow-wrap: anywhere; }
td code { white-space: nowrap; overflow-wrap: normal; }

.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1.4rem;
  margin: 1.3rem 0 0; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: .6rem; padding: .5rem; }
.beside { display: grid; grid-template-columns: minmax(15rem, 2fr) minmax(0, 3fr); gap: 0 2.4rem; align-items: start; }
figcaption { margin: .55rem 0 0; font-size: .9rem; line-height: 1.5; color: var(--muted); }

.facts { display: grid; grid-template-columns: minmax(9rem, auto) minmax(0, 1fr); gap: .45rem 1.6rem;
  margin: 1rem 0 0; }
.facts dt { color: var(--muted); font-size: .94rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; font-size: .94rem; }
details { margin: 1.2rem 0 0; border: 1px solid var(--line); border-radius: .6rem; }
summary { padding: .6rem 1rem; cursor: pointer; font-weight: 550; font-size: .94rem; }
details[open] summary { border-bottom: 1px solid var(--line); }
pre { margin: 0; padding: 1rem; overflow-x: auto; line-height: 1.5; }
.keys dt { margin: .95rem 0 0; display: flex; flex-wrap: wrap; gap: .1rem .8rem; align-items: baseline; }
.keys dd { margin: .1rem 0 0; color: var(--muted); font-size: .93rem; max-width: 46rem; }
footer { margin: 2.4rem 0 0; padding: 0 0 3rem; color: var(--muted); font-size: .88rem; }

@media (max-width: 56rem) { .beside { display: block; } }
@media (max-width: 36rem) {
  .wrap { padding: 0 1rem; }
  .hero { padding-top: 2rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: .7rem; margin-top: 1.6rem; }
  .card { padding: .9rem .95rem 1rem; }
  .card h2 { font-size: .82rem; }
  .card .value { font-size: 1.85rem; }
  .card p { font-size: .8rem; }
  .part { padding: 1.2rem 1.1rem 1.4rem; margin-top: 1.2rem; }
  .part > h2 { font-size: 1.22rem; }
  th, td { padding: .45rem .35rem; }
  table, thead th { font-size: .84rem; }
  thead th { white-space: normal; }
  td code { white-space: normal; font-size: .92em; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin: 0 0 .7rem; }
}
@media print {
  body { background: #fff; } .contents, .skip { display: none; }
  .part, .card { break-inside: avoid; box-shadow: none; }
}
"""
