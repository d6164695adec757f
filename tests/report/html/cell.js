// Where on the screen the middle of a cell of a heat map is.
([figure, row, column]) => {
  const svg = document.querySelectorAll(".heat-scroll svg")[figure];
  const { left, top, cell } = JSON.parse(svg.closest("figure").querySelector("script").textContent);
  const box = svg.getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width;
  return [box.left + (left + (column + 0.5) * cell[0]) * scale, box.top + (top + (row + 0.5) * cell[1]) * scale];
}
