"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);

  // The page may have been moved away from results.json: what is inside it is the same.
  const download = byId("download");
  const content = JSON.stringify(read("results"), null, 2) + "\n";
  download.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));

  function sort(table, column, header) {
    const body = table.tBodies[0];
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[column];
      if (column === 0) return cell.textContent.trim();
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const compare = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === null || b === null || Number.isNaN(a) || Number.isNaN(b)) {
        return (a === null || Number.isNaN(a) ? 1 : 0) - (b === null || Number.isNaN(b) ? 1 : 0);
      }
      return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    };
    body.append(...[...body.rows].sort(compare));
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, column, header));
    });
  }

  const slider = byId("threshold");
  if (slider === null) return;
  const { intros, methods } = read("risk-numbers");
  const say = () => {
    const index = Number(slider.value);
    slider.setAttribute("aria-valuetext", intros[index].replace(/:$/, ""));
    const lines = methods.map(({ method, texts, places }) => {
      const dot = document.querySelector(`circle.chosen[data-method="${CSS.escape(method)}"]`);
      dot.setAttribute("visibility", places[index] === null ? "hidden" : "visible");
      if (places[index] !== null) {
        dot.setAttribute("cx", places[index][0]);
        dot.setAttribute("cy", places[index][1]);
      }
      return texts[index];
    });
    byId("chosen").replaceChildren(
      ...[intros[index], ...lines].map((text) => {
        const line = document.createElement("span");
        line.textContent = `${text} `;
        return line;
      })
    );
  };
  slider.addEventListener("input", say);
  byId("control").hidden = false;
  say();
})();
