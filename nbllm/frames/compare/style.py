"""How a grid looks; the class is said twice to weigh more than JupyterLab's own rules for tables.

A front end's theme is not the system's: its attribute or class tells `light-dark()` which one it is.
"""

from __future__ import annotations

GRID = """\
.nbllm-grid.nbllm-grid {
  color-scheme: light dark; max-height: 85vh; overflow: auto;
  color: var(--jp-content-font-color1, var(--vscode-editor-foreground, light-dark(#1c1c1c, #e4e4e4)));
  font-size: var(--jp-content-font-size1, 14px); line-height: 1.45;
}
[data-jp-theme-light="true"] .nbllm-grid.nbllm-grid, .vscode-light .nbllm-grid.nbllm-grid { color-scheme: light; }
[data-jp-theme-light="false"] .nbllm-grid.nbllm-grid, .vscode-dark .nbllm-grid.nbllm-grid,
html[theme="dark"] .nbllm-grid.nbllm-grid { color-scheme: dark; }
.nbllm-grid.nbllm-grid table {
  border-collapse: separate; border-spacing: 0; margin: 0; table-layout: auto; font-size: inherit;
  border: 1px solid var(--jp-border-color2, light-dark(#d8d8d8, #454545)); border-width: 1px 0 0 1px;
}
.nbllm-grid.nbllm-grid table :is(th, td) {
  border: 1px solid var(--jp-border-color2, light-dark(#d8d8d8, #454545)); border-width: 0 1px 1px 0;
  padding: 0.5em 0.7em; white-space: normal; overflow-wrap: anywhere;
  min-width: 9em; max-width: 42em;
}
.nbllm-grid.nbllm-grid table [dir] { text-align: start; }
.nbllm-grid.nbllm-grid table :is(thead, tbody) tr { background: none; }
.nbllm-grid.nbllm-grid table thead {
  position: sticky; top: 0; z-index: 1;
  background: var(--jp-layout-color2, var(--vscode-editor-background, light-dark(#f1f1f1, #262626)));
}
.nbllm-grid.nbllm-grid table tbody th { font-weight: normal; max-width: 24em; }
.nbllm-grid.nbllm-grid table pre {
  margin: 0.4em 0; padding: 0.4em 0.6em; overflow: auto; white-space: pre-wrap;
  background: var(--jp-layout-color2, light-dark(#f4f4f4, #242424));
}
.nbllm-grid.nbllm-grid table hr {
  margin: 0.6em 0; border: 0; border-top: 1px dashed var(--jp-border-color2, light-dark(#c4c4c4, #555));
}
.nbllm-grid.nbllm-grid small { color: var(--jp-content-font-color2, light-dark(#5c5c5c, #a8a8a8)); font-size: 0.85em; }
.nbllm-grid.nbllm-grid .nbllm-passed { color: #1a7f37; color: light-dark(#1a7f37, #4ac26b); }
.nbllm-grid.nbllm-grid :is(.nbllm-failed, .nbllm-error) { color: #c2202b; color: light-dark(#c2202b, #ff8780); }
.nbllm-grid.nbllm-grid ins {
  background: #d6f3dd; background: light-dark(#d6f3dd, #173d22); text-decoration: underline;
}
.nbllm-grid.nbllm-grid del {
  background: #fbdedd; background: light-dark(#fbdedd, #53201f); text-decoration: line-through;
}
.nbllm-grid.nbllm-grid summary { cursor: pointer; }
.nbllm-grid.nbllm-grid details[open] .nbllm-start { display: none; }
@media print { .nbllm-grid.nbllm-grid { max-height: none; overflow: visible; } }
"""

PAGE = """\
:root { color-scheme: light dark; }
body {
  margin: 1.5em; font-family: system-ui, sans-serif;
  color: #1c1c1c; color: light-dark(#1c1c1c, #e4e4e4); background: #fff; background: light-dark(#fff, #181818);
}
body > .nbllm-grid.nbllm-grid { max-height: none; overflow: visible; }
"""
