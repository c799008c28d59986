// The report: a threshold to move, a gallery, an enlarged view, marks, a table.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LABELS = { good: 1, bad: -1, none: 0 };
const TITLES = { good: "labelled good", bad: "labelled bad", none: "without a label" };
const STEPS = 1000; // of the slider
const THUMB = 16; // pixels: width of its thumb, as in report.css
const LEFT = 44, RIGHT = 16, TOP = 36, PANEL = 84, GAP = 28, AXIS = 40; // pixels

const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const cards = findAll("#gallery > .card");
const state = { threshold: DATA.threshold, opacity: 0.5, open: -1, marks: new Map(), saved: true };

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
const allScores = DATA.scored.map(([score]) => score);
const scoresOf = (name) => allScores.filter((_, i) => DATA.scored[i][1] === LABELS[name]);
const countAbove = (scores) => scores.filter((score) => score > state.threshold).length;

function showRates() {
  for (const row of findAll("#figures tbody tr")) {
    const { row: name } = row.dataset;
    const scores = { all: allScores, calibration: DATA.calibration }[name] ?? scoresOf(name);
    const [k, n] = [countAbove(scores), scores.length];
    const [images, rate, interval] = findAll("td", row);
    images.textContent = `${k} of ${n}`;
    rate.textContent = n ? percent(k / n) : "";
    if (name in LABELS && n) {
      interval.textContent = wilson(k, n).map(percent).join(" to ").replace(" %", "");
    }
  }
}

function promiseInWords() {
  if (state.threshold === DATA.threshold) {
    return `This is the model's threshold. Its promise: ${DATA.promise}.`;
  }
  const rate = `at most ${percent(promisedRate(state.threshold))} of good images are flagged`;
  return (DATA.holds ? `Fixed beforehand, it would promise: ${rate}. ` : "")
    + "A threshold that you choose by looking at these images promises nothing about new "
    + "ones. Check it on images that you have not looked at.";
}

// --- Histogram -------------------------------------------------------------------

// A logarithmic axis where scores differ by more than a factor of ten, else a linear one.
function makeAxis(values) {
  const [least, most] = [Math.min, Math.max].map((best) => values.reduce((a, b) => best(a, b)));
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

const axis = makeAxis([DATA.threshold, ...DATA.calibration, ...allScores]);

function ticks({ isLog, low, high }) {
  const power = (x) => 10 ** Math.floor(Math.log10(x));
  const found = [];
  if (isLog) {
    for (let unit = power(low); unit <= high; unit *= 10) found.push(unit, 2 * unit, 5 * unit);
  } else {
    const rough = (high - low) / 8;
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

function drawPanel(root, name, top, width) {
  const [scores, base] = [scoresOf(name), top + PANEL];
  const counts = new Array(Math.max(12, Math.min(60, Math.floor(width / 14)))).fill(0);
  scores.forEach((score) => { counts[Math.floor(counts.length * axis.part(score))] += 1; });
  const [most, side] = [Math.max(...counts), width / counts.length];
  svg(root, "text", { x: 0, y: top - 8, class: "title" }, `${scores.length} ${TITLES[name]}`);
  svg(root, "text", { x: LEFT - 8, y: top + 10, "text-anchor": "end" }, most);
  svg(root, "text", { x: LEFT - 8, y: base, "text-anchor": "end" }, 0);
  counts.forEach((count, i) => {
    const height = count && Math.max(2, PANEL * count / most);
    const place = { x: LEFT + i * side + 1, y: base - height, width: side - 2, height };
    if (count) svg(root, "rect", { ...place, class: `bar-${name}` });
  });
  svg(root, "line", { x1: LEFT, x2: LEFT + width, y1: base, y2: base, class: "axis" });
}

function drawAxis(root, top, width) {
  const x = (value) => LEFT + width * axis.part(value);
  const line = (value, y1, y2, name) => (
    svg(root, "line", { x1: x(value), x2: x(value), y1, y2, class: name }));
  DATA.calibration.forEach((score) => line(score, top, top + 6, "rug"));
  line(DATA.threshold, 8, top, "model");
  let end = -Infinity; // of the last number, so that none overlap
  ticks(axis).forEach((value) => {
    line(value, top, top + 9, "axis");
    if (x(value) - end < 30) return;
    end = x(value);
    svg(root, "text", { x: end, y: top + 22, "text-anchor": "middle" }, inDigits(value));
  });
  const words = `anomaly score${axis.isLog ? ", on a logarithmic scale" : ""}`;
  svg(root, "text", { x: LEFT, y: top + 38 }, words);
}

function drawHistogram() {
  const root = find("#histogram svg");
  const names = Object.keys(LABELS).filter((name) => scoresOf(name).length);
  const width = root.clientWidth - LEFT - RIGHT;
  const bottom = TOP + names.length * (PANEL + GAP) - GAP;
  root.replaceChildren();
  root.setAttribute("height", bottom + AXIS);
  const turned = { patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
  const hatch = svg(root, "pattern", { id: "hatch", width: 6, height: 6, ...turned });
  svg(hatch, "rect", { width: 6, height: 6 });
  svg(hatch, "path", { d: "M0 0V6" });
  names.forEach((name, i) => drawPanel(root, name, TOP + i * (PANEL + GAP), width));
  drawAxis(root, bottom, width);
  const sides = { left: LEFT - THUMB / 2, width: width + THUMB, top: 0, height: bottom };
  Object.entries(sides).forEach(([key, value]) => { find("#threshold").style[key] = `${value}px`; });
}

// --- Threshold -------------------------------------------------------------------

// Value at a place of the slider: a calibration score or the model's threshold, if one
// is as near as the next place, since promises are exact there.
function valueAt(place) {
  const distance = (value) => Math.abs(STEPS * axis.part(value) - place);
  const marked = [DATA.threshold, ...DATA.calibration];
  const nearest = marked.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  return distance(nearest) <= 0.5 ? nearest : Number(axis.value(place / STEPS).toPrecision(5));
}

function setThreshold(threshold) {
  const slider = find("#threshold");
  state.threshold = threshold;
  slider.value = Math.round(STEPS * axis.part(threshold)); // the slider keeps its limits
  find("#typed").value = Number(threshold.toPrecision(6));
  find("#promise").textContent = promiseInWords();
  find("#command").textContent = `${DATA.command} --threshold ${threshold}`;
  find("#python").textContent = `detector.offset_ = ${-threshold}`;
  slider.setAttribute("aria-valuetext",
    `${inDigits(threshold)}: ${countAbove(allScores)} of ${allScores.length} images above`);
  showRates();
  cards.forEach(showVerdict);
  applyFilters();
  repaint();
}

const imageOf = (card) => DATA.images[card.dataset.place];
const verdictOf = (image) => (image.score > state.threshold ? "anomalous" : "good");

function showVerdict(card) {
  const [chip, verdict] = [find(".verdict", card), verdictOf(imageOf(card))];
  chip.textContent = verdict;
  chip.className = `chip verdict ${verdict === "good" ? "good" : "bad"}`;
}

// --- Gallery ---------------------------------------------------------------------

const shownCards = () => findAll("#gallery > .card:not([hidden])");

function applyFilters() {
  const { verdict, label, p_value: most, to_mark: toMark } = (
    Object.fromEntries(new FormData(find("#filters"))));
  cards.forEach((card) => {
    const image = imageOf(card);
    card.hidden = (verdict && verdictOf(image) !== verdict)
      || (label && image.label !== Number(label))
      || (most && image.p_value > Number(most)) || (toMark && !image.to_mark);
  });
  find("#shown").textContent = `${shownCards().length} of ${cards.length} images shown`;
}

function sortGallery() {
  const order = Number(find("[name=order]").value);
  const sorted = [...cards].sort((a, b) => order * (a.dataset.place - b.dataset.place));
  find("#gallery").replaceChildren(...sorted);
}

// Draw the heat of an image at a multiple of its thumbnail's size, or that of its map.
async function paint(place, canvas, scale, line) {
  const map = await loadMap(DATA.images[place].map);
  if (canvas.closest("dialog") && place !== state.open) return; // it is another by now
  const picture = find("img", cards[place]);
  const [width, height] = ["width", "height"].map(
    (name) => Math.max(map[name], Math.round(scale * picture.getAttribute(name))));
  drawHeat(canvas, map, state.threshold, { opacity: state.opacity, line, width, height });
}

const paintCard = (card) => paint(card.dataset.place, find("canvas", card), 0.6, 1);
const paintEnlarged = () => paint(state.open, find("#enlarged canvas"), 2, 2);

const inView = new Set(); // cards whose heat is drawn
const observer = new IntersectionObserver((entries) => entries.forEach((entry) => {
  inView[entry.isIntersecting ? "add" : "delete"](entry.target);
  if (entry.isIntersecting) paintCard(entry.target);
}), { rootMargin: "200px" });

let waiting = 0; // for the next frame, to draw again what can be seen
function repaint() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    inView.forEach(paintCard);
    if (state.open >= 0) paintEnlarged();
  });
}

// The card that an arrow key leads to.
function neighbour(card, key) {
  const shown = shownCards();
  const columns = shown.filter((one) => one.offsetTop === shown[0].offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  return shown[shown.indexOf(card) + by] ?? card;
}

// --- Enlarged view ---------------------------------------------------------------

function openImage(place) {
  const [image, dialog] = [DATA.images[place], find("#enlarged")];
  const label = Object.keys(LABELS).find((name) => LABELS[name] === image.label);
  state.open = place;
  find("img", dialog).src = find("img", cards[place]).src;
  find("#enlarged-name").textContent = image.name;
  find("#enlarged-facts").textContent = `${verdictOf(image)}, score ${inDigits(image.score)}\n`
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

// The browser gives the focus back to what opened the view; go to the image shown last.
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
  find("#export").disabled = !state.marks.size;
  find("#export").textContent = `Export marks (${state.marks.size})`;
  find("#said").textContent = isSame ? "mark removed" : `marked ${label}`;
  showMark(place);
}

function showMark(place) {
  const [label, chip] = [state.marks.get(place), find(".mark", cards[place])];
  chip.hidden = !label;
  chip.textContent = `marked ${label}`;
  findAll("[data-mark]").forEach((button) => {
    button.setAttribute("aria-pressed", button.dataset.mark === state.marks.get(state.open));
  });
}

// Text as bytes; Python's escapes of bytes that are no UTF-8 become these bytes again.
function toBytes(text) {
  return text.split(/([\udc80-\udcff])/u).map((part, i) => (
    i % 2 ? Uint8Array.of(part.charCodeAt() - 0xdc00) : new TextEncoder().encode(part)));
}

function exportMarks() {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const rows = [...state.marks].map(([place, label]) => `${quoted(DATA.images[place].path)},${label}\n`);
  const file = new Blob(toBytes(["path,label\n", ...rows].join("")), { type: "text/csv" });
  const link = document.createElement("a");
  Object.assign(link, { href: URL.createObjectURL(file), download: "marks.csv" }).click();
  URL.revokeObjectURL(link.href);
  state.saved = true;
}

// --- Regions ---------------------------------------------------------------------

function sortRegions(header) {
  const [table, column] = [header.closest("table"), header.cellIndex];
  const sign = header.ariaSort === "descending" ? 1 : -1;
  const compare = (a, b) => (column ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...table.tBodies[0].rows].sort((a, b) => sign * compare(value(a), value(b)));
  findAll("th", table).forEach((other) => other.removeAttribute("aria-sort"));
  header.ariaSort = sign > 0 ? "ascending" : "descending";
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

function setOpacity({ value }) {
  state.opacity = value / 100;
  findAll(".opacity").forEach((slider) => { slider.value = value; });
  repaint();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const card = event.target.closest("#gallery > .card");
  const place = state.open >= 0 ? state.open : Number(card?.dataset.place ?? -1);
  const label = { g: "good", b: "bad" }[event.key.toLowerCase()];
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (place < 0 || !(by || label)) return;
  event.preventDefault();
  if (label && find("#export")) mark(place, label);
  if (by && state.open >= 0) step(by);
  if (by && state.open < 0) find("button", neighbour(card, event.key)).focus();
}

function on(selector, type, act) {
  findAll(selector).forEach((element) => element.addEventListener(type, () => act(element)));
}

on("#threshold", "input", (slider) => setThreshold(valueAt(slider.value)));
on("#typed", "change", ({ value }) => setThreshold(value === "" ? state.threshold : Number(value)));
on("#reset", "click", () => setThreshold(DATA.threshold));
on("#filters", "input", applyFilters);
on("[name=order]", "input", sortGallery);
on(".opacity", "input", setOpacity);
on(".copy button", "click", copy);
on("#export", "click", exportMarks);
on(".card > button", "click", (button) => openImage(Number(button.parentElement.dataset.place)));
on("button[data-place]", "click", (button) => openImage(Number(button.dataset.place)));
on("#regions th button", "click", (button) => sortRegions(button.parentElement));
on("[data-step]", "click", (button) => step(Number(button.dataset.step)));
on("[data-mark]", "click", (button) => mark(state.open, button.dataset.mark));
on("#close", "click", () => find("#enlarged").close());
on("#enlarged", "close", closed);
document.addEventListener("keydown", press);
find("#filters").addEventListener("submit", (event) => event.preventDefault());
addEventListener("beforeprint", () => shownCards().forEach(paintCard));
addEventListener("beforeunload", (event) => { if (!state.saved && state.marks.size) event.preventDefault(); });
new ResizeObserver(drawHistogram).observe(find("#histogram"));
cards.forEach((card) => observer.observe(card));
drawHistogram();
setThreshold(DATA.threshold);
