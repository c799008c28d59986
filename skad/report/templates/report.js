// The report: a threshold to move, a gallery, an enlarged view, marks, a table.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SERIES = { good: 1, bad: -1, none: 0 }; // by label
const TITLES = { good: "labelled good", bad: "labelled bad", none: "without a label" };
const STEPS = 1000; // of the slider
const THUMB = 16; // pixels: width of its thumb, as in report.css
const MARGIN = { left: 44, right: 16, top: 36, panel: 84, gap: 28, axis: 40 };

const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const cards = findAll("#gallery > .card");
const state = { threshold: DATA.threshold, opacity: 0.5, marks: new Map(), saved: true, open: -1 };

// --- Figures ---------------------------------------------------------------------

// 95 % Wilson score interval of a rate, k of n.
function wilson(k, n) {
  const z = 1.959963984540054; // quantile 0.975 of the normal distribution
  const middle = (k + z * z / 2) / (n + z * z);
  const half = z / (n + z * z) * Math.sqrt(k * (n - k) / n + z * z / 4);
  return [k === 0 ? 0 : middle - half, k === n ? 1 : middle + half];
}

// Least false-alarm rate that a threshold can promise, if it is fixed beforehand: with
// m scores of held-out good images, k - 1 of which lie above it, k / (m + 1).
function promisedRate(threshold) {
  const m = DATA.calibration.length;
  return (1 + DATA.calibration.filter((score) => score > threshold).length) / (m + 1);
}

const percent = (rate) => `${(100 * rate).toFixed(1)} %`;
const inDigits = (value) => String(Number(value.toPrecision(4)));

function countAbove(scores) {
  return [scores.filter((score) => score > state.threshold).length, scores.length];
}

function scoresOf(label) {
  return DATA.scored.filter((one) => one[1] === label).map(([score]) => score);
}

function showRates() {
  const samples = {
    all: DATA.scored.map(([score]) => score), good: scoresOf(1), bad: scoresOf(-1),
    calibration: DATA.calibration,
  };
  for (const row of findAll("#figures tbody tr")) {
    const { row: name } = row.dataset;
    const [k, n] = countAbove(samples[name]);
    const [images, rate, interval] = findAll("td", row);
    images.textContent = `${k} of ${n}`;
    rate.textContent = n ? percent(k / n) : "";
    if (n && (name === "good" || name === "bad")) {
      interval.textContent = wilson(k, n).map(percent).join(" to ").replace(" %", "");
    }
  }
}

function promiseInWords() {
  if (state.threshold === DATA.threshold) {
    return `This is the model's threshold. Its promise: ${DATA.promise}.`;
  }
  const rate = `at most ${percent(promisedRate(state.threshold))} of good images are flagged`;
  const before = DATA.holds ? `Fixed beforehand, it would promise: ${rate}. ` : "";
  return `${before}A threshold that you choose by looking at these images promises `
    + "nothing about new ones. Check it on images that you have not looked at.";
}

// --- Histogram -------------------------------------------------------------------

// A logarithmic axis where scores differ by more than a factor of ten, else a linear one.
function makeAxis(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const isLog = least > 0 && most / least > 10;
  const [to, from] = isLog ? [Math.log, Math.exp] : [(x) => x, (x) => x];
  const margin = (to(most) - to(least)) * 0.03 || Math.abs(most) * 0.1 || 1;
  const [low, high] = [to(least) - margin, to(most) + margin];
  return {
    isLog, low: from(low), high: from(high),
    part: (value) => (to(value) - low) / (high - low), // 0 to 1
    value: (part) => from(low + part * (high - low)),
  };
}

const axis = makeAxis([DATA.threshold, ...DATA.calibration, ...DATA.scored.map((one) => one[0])]);

function ticks({ isLog, low, high }) {
  const power = (x) => 10 ** Math.floor(Math.log10(x));
  let found = [];
  if (isLog) {
    for (let unit = power(low); unit <= high; unit *= 10) found.push(unit, 2 * unit, 5 * unit);
  } else {
    const rough = (high - low) / 5;
    const step = [1, 2, 5, 10].map((x) => x * power(rough)).find((x) => x >= rough);
    for (let i = Math.ceil(low / step); i * step <= high; i += 1) found.push(i * step);
  }
  return found.filter((x) => x >= low && x <= high);
}

function svg(parent, name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.textContent = text;
  return parent.appendChild(element);
}

function drawPanel(root, name, top, left, width) {
  const scores = scoresOf(SERIES[name]);
  const n = Math.max(12, Math.min(60, Math.floor(width / 14)));
  const counts = new Array(n).fill(0);
  scores.forEach((score) => { counts[Math.min(n - 1, Math.floor(n * axis.part(score)))] += 1; });
  const [most, base] = [Math.max(...counts), top + MARGIN.panel];
  svg(root, "text", { x: 0, y: top - 8, class: "title" }, `${scores.length} ${TITLES[name]}`);
  svg(root, "text", { x: left - 8, y: top + 10, "text-anchor": "end" }, most);
  svg(root, "text", { x: left - 8, y: base, "text-anchor": "end" }, 0);
  counts.forEach((count, i) => {
    const height = count && Math.max(2, MARGIN.panel * count / most);
    if (!count) return;
    const box = { x: left + i * width / n + 1, y: base - height, width: width / n - 2, height };
    svg(root, "rect", { ...box, class: `bar-${name}` });
  });
  svg(root, "line", { x1: left, x2: left + width, y1: base, y2: base, class: "axis" });
}

function drawAxis(root, top, left, width) {
  const at = (value) => left + width * axis.part(value);
  DATA.calibration.forEach((score) => {
    svg(root, "line", { x1: at(score), x2: at(score), y1: top, y2: top + 6, class: "rug" });
  });
  let end = -Infinity; // of the last number, so that none overlap
  ticks(axis).forEach((value) => {
    svg(root, "line", { x1: at(value), x2: at(value), y1: top, y2: top + 9, class: "axis" });
    if (at(value) - end < 30) return;
    end = at(value);
    svg(root, "text", { x: at(value), y: top + 22, "text-anchor": "middle" }, inDigits(value));
  });
  const words = `anomaly score${axis.isLog ? " (logarithmic)" : ""}; short blue lines: good images that set the threshold`;
  svg(root, "text", { x: left, y: top + 38 }, width > 480 ? words : words.split(";")[0]);
}

function drawHistogram() {
  const root = find("#histogram svg");
  const names = Object.keys(SERIES).filter((name) => scoresOf(SERIES[name]).length);
  const [left, width] = [MARGIN.left, root.clientWidth - MARGIN.left - MARGIN.right];
  const panels = names.length * (MARGIN.panel + MARGIN.gap) - MARGIN.gap;
  const height = MARGIN.top + panels + MARGIN.axis;
  root.replaceChildren();
  root.setAttribute("height", height);
  const hatch = svg(root, "pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  svg(hatch, "rect", { width: 6, height: 6 });
  svg(hatch, "path", { d: "M0 0V6" });
  names.forEach((name, i) => {
    drawPanel(root, name, MARGIN.top + i * (MARGIN.panel + MARGIN.gap), left, width);
  });
  drawAxis(root, MARGIN.top + panels, left, width);
  const x = left + width * axis.part(DATA.threshold);
  svg(root, "line", { x1: x, x2: x, y1: 8, y2: MARGIN.top + panels, class: "model" });
  Object.assign(find("#threshold").style, {
    left: `${left - THUMB / 2}px`, width: `${width + THUMB}px`, top: "0px",
    height: `${MARGIN.top + panels}px`,
  });
}

// --- Threshold -------------------------------------------------------------------

// Value at a place of the slider: a calibration score or the model's threshold, if one
// is as near as the next place, since promises are exact there.
function valueAt(place) {
  const value = axis.value(place / STEPS);
  const distance = (other) => Math.abs(STEPS * axis.part(other) - place);
  const marked = [DATA.threshold, ...DATA.calibration];
  const nearest = marked.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  return distance(nearest) <= 0.5 ? nearest : Number(value.toPrecision(5));
}

function setThreshold(threshold) {
  const slider = find("#threshold");
  state.threshold = threshold;
  slider.value = Math.round(STEPS * Math.min(Math.max(axis.part(threshold), 0), 1));
  const [k, n] = countAbove(DATA.scored.map(([score]) => score));
  slider.setAttribute("aria-valuetext", `${inDigits(threshold)}: ${k} of ${n} images above`);
  find("#typed").value = Number(threshold.toPrecision(6));
  find("#promise").textContent = promiseInWords();
  find("#command").textContent = `${DATA.command} --threshold ${threshold}`;
  find("#python").textContent = `detector.offset_ = ${-threshold}`;
  showRates();
  cards.forEach(showVerdict);
  applyFilters();
  repaint();
}

function showVerdict(card) {
  const { score } = imageOf(card);
  const isOver = score > state.threshold;
  const chip = find(".verdict", card);
  chip.textContent = isOver ? "anomalous" : "good";
  chip.className = `chip verdict ${isOver ? "bad" : "good"}`;
}

// --- Gallery ---------------------------------------------------------------------

const imageOf = (card) => DATA.images[card.dataset.place];
const shownCards = () => findAll("#gallery > .card:not([hidden])");

function applyFilters() {
  const form = new FormData(find("#filters"));
  const [verdict, label, most] = ["verdict", "label", "p_value"].map((name) => form.get(name));
  cards.forEach((card) => {
    const image = imageOf(card);
    const isVerdict = !verdict || (verdict === "anomalous") === image.score > state.threshold;
    card.hidden = !(isVerdict && (!label || image.label === Number(label))
      && (!most || image.p_value <= Number(most)) && (!form.get("to_mark") || image.to_mark));
  });
  const n = cards.filter((card) => !card.hidden).length;
  find("#shown").textContent = `${n} of ${cards.length} images shown`;
}

function sortGallery() {
  const order = Number(find("[name=order]").value);
  const sorted = [...cards].sort((a, b) => order * (a.dataset.place - b.dataset.place));
  find("#gallery").replaceChildren(...sorted);
}

async function paintCard(card) {
  const image = imageOf(card);
  const [picture, canvas] = [find("img", card), find("canvas", card)];
  const shrunk = Math.min(1, 224 / Math.max(picture.width, picture.height));
  const map = await loadMap(image.map);
  drawHeat(canvas, map, state.threshold, {
    opacity: state.opacity, line: 1,
    width: Math.round(picture.getAttribute("width") * shrunk),
    height: Math.round(picture.getAttribute("height") * shrunk),
  });
}

const inView = new Set(); // cards whose heat is drawn
const observer = new IntersectionObserver((entries) => entries.forEach((entry) => {
  inView[entry.isIntersecting ? "add" : "delete"](entry.target);
  if (entry.isIntersecting) paintCard(entry.target);
}), { rootMargin: "200px" });

// Draw again what can be seen, once a frame at most.
let waiting = 0;
function repaint() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    inView.forEach(paintCard);
    if (state.open >= 0) paintEnlarged();
  });
}

// The card that an arrow key leads to, or null.
function neighbour(card, key) {
  const shown = shownCards();
  const columns = shown.filter((one) => one.offsetTop === shown[0].offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  return by ? shown[shown.indexOf(card) + by] ?? null : null;
}

// --- Enlarged view ---------------------------------------------------------------

async function paintEnlarged() {
  const image = DATA.images[state.open];
  const picture = find("img", cards[state.open]);
  const [width, height] = ["width", "height"].map((name) => 2 * picture.getAttribute(name));
  const map = await loadMap(image.map);
  if (DATA.images[state.open] !== image) return; // it is another by now
  drawHeat(find("#enlarged canvas"), map, state.threshold,
    { opacity: state.opacity, line: 2, width, height });
}

function openImage(place) {
  const image = DATA.images[place];
  const dialog = find("#enlarged");
  state.open = place;
  const isOver = image.score > state.threshold;
  const label = { 1: "good", "-1": "bad", 0: "none" }[image.label];
  const picture = find("img", dialog);
  picture.src = find("img", cards[place]).src;
  find("#enlarged-name").textContent = image.name;
  find("#enlarged-facts").textContent = `${isOver ? "anomalous" : "good"}, score ${inDigits(image.score)}\n`
    + `p-value ${inDigits(image.p_value)}\nlabel: ${label}`;
  find("#enlarged-notes").textContent = image.notes;
  const good = find("#enlarged-good");
  good.hidden = !image.nearest;
  if (image.nearest) find("img", good).src = image.nearest;
  showMark(place);
  if (!dialog.open) dialog.showModal();
  paintEnlarged();
}

function step(by) {
  const shown = shownCards().map((card) => Number(card.dataset.place));
  const next = shown[shown.indexOf(state.open) + by];
  if (next !== undefined) openImage(next);
}

function closed() {
  const card = cards[state.open];
  state.open = -1;
  if (!card.hidden && document.activeElement.closest("#gallery")) find("button", card).focus();
}

// --- Marks -----------------------------------------------------------------------

function mark(place, label) {
  const isSame = state.marks.get(place) === label;
  if (isSame) state.marks.delete(place); else state.marks.set(place, label);
  state.saved = false;
  const button = find("#export");
  button.disabled = !state.marks.size;
  button.textContent = `Export marks (${state.marks.size})`;
  find("#said").textContent = isSame ? "mark removed" : `marked ${label}`;
  showMark(place);
}

function showMark(place) {
  const label = state.marks.get(place);
  const chip = find(".mark", cards[place]);
  chip.hidden = !label;
  chip.textContent = `marked ${label}`;
  if (state.open !== place) return;
  findAll("[data-mark]").forEach((button) => {
    button.setAttribute("aria-pressed", button.dataset.mark === label);
  });
}

const quoted = (text) => `"${text.replaceAll('"', '""')}"`;

// Text as bytes; Python's escapes of bytes that are no UTF-8 become these bytes again.
function toBytes(text) {
  const parts = text.split(/([\udc80-\udcff])/u);
  return parts.map((part, i) => (i % 2 ? Uint8Array.of(part.charCodeAt() - 0xdc00)
    : new TextEncoder().encode(part)));
}

function exportMarks() {
  const rows = [...state.marks].map(([place, label]) => `${quoted(DATA.images[place].path)},${label}\n`);
  const file = new Blob(toBytes(["path,label\n", ...rows].join("")), { type: "text/csv" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: "marks.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
  state.saved = true;
}

// --- Regions ---------------------------------------------------------------------

function sortRegions(header) {
  const [table, column] = [header.closest("table"), header.cellIndex];
  const rises = header.ariaSort === "descending";
  const value = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => (column ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => (rises ? 1 : -1) * compare(value(a), value(b)));
  findAll("th", table).forEach((other) => other.removeAttribute("aria-sort"));
  header.ariaSort = rises ? "ascending" : "descending";
  table.tBodies[0].append(...rows);
}

// --- What people do --------------------------------------------------------------

async function copy(button) {
  const code = document.getElementById(button.dataset.of);
  try {
    await navigator.clipboard.writeText(code.textContent);
    find("#said").textContent = "copied";
  } catch { // not allowed here: select it, to be copied by hand
    getSelection().selectAllChildren(code);
  }
}

function setOpacity(slider) {
  state.opacity = slider.value / 100;
  findAll(".opacity").forEach((other) => { other.value = slider.value; });
  repaint();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const card = event.target.closest("#gallery > .card");
  const place = state.open >= 0 ? state.open : Number(card?.dataset.place ?? -1);
  const label = { g: "good", b: "bad" }[event.key.toLowerCase()];
  if (label && place >= 0 && find("#export")) mark(place, label);
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!by || place < 0) return;
  event.preventDefault();
  if (state.open >= 0) step(by);
  else find("button", neighbour(card, event.key) ?? card).focus();
}

function listen() {
  find("#threshold").addEventListener("input", (event) => setThreshold(valueAt(event.target.value)));
  find("#typed").addEventListener("change", ({ target }) => {
    setThreshold(target.value === "" ? state.threshold : target.valueAsNumber);
  });
  find("#reset").addEventListener("click", () => setThreshold(DATA.threshold));
  find("#filters").addEventListener("submit", (event) => event.preventDefault());
  find("#filters").addEventListener("input", applyFilters);
  find("[name=order]").addEventListener("input", sortGallery);
  findAll(".opacity").forEach((slider) => slider.addEventListener("input", () => setOpacity(slider)));
  findAll(".copy button").forEach((button) => button.addEventListener("click", () => copy(button)));
  findAll("[data-place] > button, button[data-place]").forEach((button) => {
    const { place } = button.closest("[data-place]").dataset;
    button.addEventListener("click", () => openImage(Number(place)));
  });
  findAll("#regions th").forEach((header) => find("button", header).addEventListener("click", () => sortRegions(header)));
  findAll("[data-step]").forEach((button) => button.addEventListener("click", () => step(Number(button.dataset.step))));
  findAll("[data-mark]").forEach((button) => button.addEventListener("click", () => mark(state.open, button.dataset.mark)));
  find("#close").addEventListener("click", () => find("#enlarged").close());
  find("#enlarged").addEventListener("close", closed);
  find("#export")?.addEventListener("click", exportMarks);
  document.addEventListener("keydown", pressed);
  new ResizeObserver(drawHistogram).observe(find("#histogram"));
  addEventListener("beforeprint", () => shownCards().forEach(paintCard));
  addEventListener("beforeunload", (event) => { if (!state.saved && state.marks.size) event.preventDefault(); });
}

cards.forEach((card) => observer.observe(card));
listen();
drawHistogram();
setThreshold(DATA.threshold);
