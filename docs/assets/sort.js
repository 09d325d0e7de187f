// Sort a table by a column: a click on its heading, or Enter or space on it. A table qualifies with
// five rows and a column of numbers, which Markdown aligns to the right.
(() => {
  "use strict";

  // Numbers first, "< 0.001" below 0.001 and "45.3 ± 0.5" by its mean; then words; then empty cells.
  const key = (cell) => {
    const text = cell.textContent.trim();
    const found = text.match(/^(<\s*)?([-+]?[\d,]*\.?\d+)(?=$|\s|%)/);
    if (!found) return { kind: /^-?$/.test(text) ? 2 : 1, value: text.toLowerCase() };
    const value = Number(found[2].replaceAll(",", ""));
    return { kind: 0, value: found[1] ? value * (1 - 1e-9) : value };
  };

  const compare = (a, b, sign) => {
    if (a.kind !== b.kind) return a.kind - b.kind;
    if (a.kind === 0) return sign * (a.value - b.value);
    return a.kind === 1 ? sign * a.value.localeCompare(b.value, "en") : 0;
  };

  const sort = (table, column) => {
    const heads = [...table.tHead.rows[0].cells];
    const sign = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [key(row.cells[column]), row]);
    keyed.sort((a, b) => compare(a[0], b[0], sign)); // equal rows stay in their order
    body.append(...keyed.map(([, row]) => row));
  };

  for (const table of document.querySelectorAll("article table:not([class])")) {
    const rows = table.tBodies[0]?.rows ?? [];
    if (!table.tHead || rows.length < 5) continue;
    if (![...rows[0].cells].some((cell) => cell.style.textAlign === "right")) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.title = "Sort by this column";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, column));
    });
  }
})();
