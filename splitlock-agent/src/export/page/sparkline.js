// A sparkline: the last rates as a line. The number is always beside it in words, so that it is
// hidden from a screen reader.

const SVG = "http://www.w3.org/2000/svg";

function makeSvg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** An empty sparkline. */
function makeSparkline(width, height) {
  const svg = makeSvg("svg", {
    class: "spark", width, height, viewBox: `0 0 ${width} ${height}`,
    preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false",
  });
  svg.append(makeSvg("path", { class: "area" }), makeSvg("path", { class: "line" }));
  return svg;
}

/** Draws rates, oldest first; `NaN` leaves a gap. */
function drawSparkline(svg, rates) {
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  let top = 0;
  for (const value of rates) if (value > top) top = value;
  const step = width / Math.max(1, rates.length - 1);
  let line = "";
  let area = "";
  let begin = null;
  rates.forEach((value, index) => {
    const x = (index * step).toFixed(1);
    if (Number.isNaN(value)) {
      if (begin !== null) area += `L${((index - 1) * step).toFixed(1)} ${height}L${begin} ${height}Z`;
      begin = null;
      return;
    }
    const y = (height - 1 - (top === 0 ? 0 : (value / top) * (height - 3))).toFixed(1);
    line += `${begin === null ? "M" : "L"}${x} ${y}`;
    area += `${begin === null ? "M" : "L"}${x} ${y}`;
    begin ??= x;
  });
  if (begin !== null) area += `L${width} ${height}L${begin} ${height}Z`;
  setAttribute(svg.firstChild, "d", area);
  setAttribute(svg.lastChild, "d", line);
}
