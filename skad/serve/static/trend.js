"use strict";
// The chart of p-values: one place for each of the last images, on a logarithmic axis.

const PLACES = 300;
const MARGIN = { left: 44, right: 8, top: 8, bottom: 8 };
const MARKS = { // circle, triangle, square
  accept: "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0",
  warn: "M0-5L5 4H-5Z",
  reject: "M-4-4H4V4H-4Z",
};

function svg(parent, name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.textContent = text;
  return parent.appendChild(element);
}

// Rates that models promise, as lines: {rate, words}. The same rate is one line.
function promisedLines(models) {
  const lines = new Map();
  models.forEach((model) => [["warn", model.warn_fpr], ["reject", model.reject_fpr]].forEach(([action, rate]) => {
    if (rate !== null && !lines.has(`${rate}`)) lines.set(`${rate}`, { rate, words: `${action} at ${Number(rate.toPrecision(2))}` });
  }));
  return [...lines.values()];
}

// Draw the p-values of verdicts, oldest first.
function drawTrend(root, verdicts, models) {
  const shown = verdicts.slice(-PLACES).filter((one) => one.p_value !== null);
  const lines = promisedLines(models);
  const least = Math.min(0.1, ...shown.map((one) => one.p_value), ...lines.map((line) => line.rate));
  const powers = Math.ceil(-Math.log10(least) - 1e-9); // from 1 down to 10 ** -powers
  const [width, height] = [root.clientWidth, root.clientHeight];
  const [inner, depth] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
  const x = (i) => MARGIN.left + inner * (PLACES - shown.length + i + 0.5) / PLACES;
  const y = (p) => MARGIN.top + depth * -Math.log10(p) / powers;
  root.replaceChildren();
  root.setAttribute("aria-label", shown.length ? `p-values of the last ${shown.length} images; the last is ${Number(shown.at(-1).p_value.toPrecision(2))}` : "No p-values yet");
  for (let power = 0; power <= powers; power += 1) {
    const p = 10 ** -power;
    svg(root, "line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(p), y2: y(p), class: "grid" });
    svg(root, "text", { x: MARGIN.left - 6, y: y(p) + 4, "text-anchor": "end" }, `${Number(p.toPrecision(1))}`);
  }
  shown.forEach((one, i) => {
    svg(root, "path", { d: MARKS[one.action], transform: `translate(${x(i)} ${y(one.p_value)})`, class: one.action });
  });
  lines.forEach(({ rate, words }, i) => {
    svg(root, "line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(rate), y2: y(rate), class: "limit" });
    svg(root, "text", { x: MARGIN.left + 4 + 110 * i, y: y(rate) - 4, class: "limit" }, words);
  });
}
