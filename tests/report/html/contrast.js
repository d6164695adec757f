// Whether there is text at all, and text with less contrast to what lies behind it than WCAG's AA asks for.
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const [r, g, b, alpha] = channels(getComputedStyle(element).backgroundColor);
    if (alpha === 255 || element === document.body) return [r, g, b];
    const under = behind(element.parentElement);
    return alpha ? [r, g, b].map((c, at) => (c * alpha + under[at] * (255 - alpha)) / 255) : under;
  };
  const found = new Set();
  let seen = 0;
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("script, svg") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    seen += 1;
    const ink = luminance(channels(getComputedStyle(e).color).slice(0, 3));
    const [lighter, darker] = [ink, luminance(behind(e))].sort((a, b) => b - a);
    const contrast = (lighter + 0.05) / (darker + 0.05);
    if (contrast < 4.5) found.add(`${e.tagName} ${e.className} ${contrast.toFixed(2)}`);
  }
  return [seen > 20, ...found];
}
