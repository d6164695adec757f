"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Folds of the checkpoint table. Without a script nothing is folded.
const fold = (button, open) => {
  button.setAttribute("aria-expanded", open);
  document.getElementById(button.getAttribute("aria-controls")).classList.toggle("folded", !open);
};
for (const button of all(".fold")) {
  fold(button, false);
  button.addEventListener("click", () => fold(button, button.getAttribute("aria-expanded") === "false"));
}
for (const tools of all(".tools")) {
  tools.hidden = false;
  tools.addEventListener("click", (event) => {
    const wanted = event.target.dataset.fold;
    if (wanted) for (const button of all(".fold")) fold(button, wanted === "open");
  });
}

// On paper everything is open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = all("details:not([open])");
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});
if (matchMedia("(max-width: 1179px)").matches) for (const details of all(".contents")) details.open = false;

for (const button of all(".copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

const told = {
  horizon: ({ rows, cells }, row, column) => {
    const ahead = cells[row][column];
    const sees = ahead === null ? "? (the proof has a hole)" : ahead === 0 ? "+0, nothing ahead" : `+${ahead} ahead`;
    return `${rows[row]}, position ${column}: sees ${sees}`;
  },
  delta: ({ seen, cells }, row, column) => {
    const [first, last] = seen[row];
    const relation = column < first || column > last ? "which it may not see" : "which it may see";
    return `output position ${row}, input position ${column} (${relation}): delta ${cells[row][column]}`;
  },
};

for (const figure of all(".heat")) {
  const { kind, left, top, cell, values } = JSON.parse(figure.querySelector("script").textContent);
  const output = figure.querySelector("output");
  const scroll = figure.querySelector(".heat-scroll");
  const svg = scroll.querySelector("svg");
  const cross = svg.querySelector(".cross");
  const [width, height] = [svg.width.baseVal.value, svg.height.baseVal.value];
  const [rows, columns] = [values.cells.length, values.cells[0].length];
  let at = null;
  let zoom = 1;

  const show = (row, column) => {
    at = [Math.min(rows - 1, Math.max(0, row)), Math.min(columns - 1, Math.max(0, column))];
    const [x, y] = [left + at[1] * cell[0], top + at[0] * cell[1]];
    const box = cross.querySelector("rect");
    box.setAttribute("x", x);
    box.setAttribute("y", y);
    const [middle, centre] = [x + cell[0] / 2, y + cell[1] / 2];
    cross.querySelector("path").setAttribute("d", `M${left} ${centre}H${x}M${middle} ${top}V${y}`);
    cross.setAttribute("visibility", "visible");
    output.textContent = told[kind](values, ...at);
    output.classList.add("told");
  };
  const point = (event) => {
    const box = svg.getBoundingClientRect();
    const column = Math.floor((((event.clientX - box.left) / box.width) * width - left) / cell[0]);
    const row = Math.floor((((event.clientY - box.top) / box.height) * height - top) / cell[1]);
    if (row >= 0 && row < rows && column >= 0 && column < columns) show(row, column);
  };
  const scale = (factor) => {
    zoom = factor ? Math.min(8, Math.max(0.5, zoom * factor)) : 1;
    svg.setAttribute("width", width * zoom);
    svg.setAttribute("height", height * zoom);
    svg.style.setProperty("--zoom", zoom);
    if (at) cross.querySelector("rect").scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("click", point);
  scroll.addEventListener("focus", () => at || show(0, 0));
  scroll.addEventListener("keydown", (event) => {
    const [row, column] = at || [0, 0];
    const moves = {
      ArrowUp: () => show(row - 1, column),
      ArrowDown: () => show(row + 1, column),
      ArrowLeft: () => show(row, column - 1),
      ArrowRight: () => show(row, column + 1),
      Home: () => show(row, 0),
      End: () => show(row, columns - 1),
      PageUp: () => show(0, column),
      PageDown: () => show(rows - 1, column),
      "+": () => scale(1.5),
      "-": () => scale(1 / 1.5),
      0: () => scale(0),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
    cross.querySelector("rect").scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  const buttons = figure.querySelector(".zoom");
  buttons.hidden = false;
  buttons.addEventListener("click", (event) => {
    const factor = { in: 1.5, out: 1 / 1.5, one: 0 }[event.target.dataset.zoom];
    if (factor !== undefined) scale(factor);
  });
}
