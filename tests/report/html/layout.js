// Elements that leave the page, or whose text leaves them, and siblings that lie on each other.
() => {
  const found = [];
  const name = (e) => `<${e.tagName.toLowerCase()} class="${e.className}"> ${e.textContent.trim().slice(0, 40)}`;
  const drawn = (e) =>
    e.getClientRects().length && getComputedStyle(e).position !== "absolute" && !e.closest("thead, svg, .skip");
  if (document.documentElement.scrollWidth > innerWidth) found.push(`page: ${document.documentElement.scrollWidth}`);
  for (const e of document.querySelectorAll("body *")) {
    if (!drawn(e)) continue;
    const box = e.getBoundingClientRect();
    const scrolls = e.parentElement.closest(".scroll, .source, .heat-scroll");
    if (!scrolls && (box.right > innerWidth + 0.5 || box.left < -0.5)) found.push(`outside: ${name(e)}`);
    const block = e.matches("td, th, dd, p, a, li") && e.clientWidth;
    if (block && e.scrollWidth > e.clientWidth + 1) found.push(`cut: ${name(e)}`);
  }
  const parents =
    "main, section, header, dl > div, .body, .flow, .fork, .lane, .nodes, .phases > li, .heat-tools, tr, .command";
  for (const parent of document.querySelectorAll(parents)) {
    const boxes = [...parent.children].filter(drawn).map((e) => [e, e.getBoundingClientRect()]);
    boxes.forEach(([a, one], at) => {
      for (const [b, two] of boxes.slice(at + 1)) {
        const across = Math.min(one.right, two.right) - Math.max(one.left, two.left);
        const down = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
        if (across > 1 && down > 1) found.push(`overlap: ${name(a)} and ${name(b)}`);
      }
    });
  }
  return found.slice(0, 5);
}
