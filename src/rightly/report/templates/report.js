"use strict";
// Nothing here is needed to read the page: tables sort when a column head is clicked, and print opens what is folded.
function number(cell) {
  const order = cell.dataset.order ?? cell.textContent.replace(/−/g, "-").replace(/,/g, "");
  return parseFloat(order);
}
function sort(table, at, down) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  rows.sort((a, b) => {
    const [x, y] = [a.cells[at], b.cells[at]];
    const [m, n] = [number(x), number(y)];
    const numeric = !Number.isNaN(m) && !Number.isNaN(n);
    const order = numeric ? m - n : x.textContent.localeCompare(y.textContent, "en", { numeric: true });
    return down ? -order : order;
  });
  body.append(...rows);
}
for (const table of document.querySelectorAll("details table")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, at) => {
    let down = head.classList.contains("number");
    head.classList.add("sorts");
    head.tabIndex = 0;
    head.title = "Sort by this column";
    const act = () => { sort(table, at, down); down = !down; };
    head.addEventListener("click", act);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") act(); });
  });
}
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
