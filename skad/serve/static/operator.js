"use strict";
// The operator's page: the last verdicts as they come, counters, alerts, marks.

const ACTIONS = { // the symbols are paths in a box of 24 x 24
  accept: { word: "GOOD", symbol: "M4 13l5.5 5.5L20 6" },
  warn: { word: "CHECK", symbol: "M12 3v11M12 19v1" },
  reject: { word: "REJECT", symbol: "M5 5l14 14M19 5L5 19" },
};
const KEPT = 500; // verdicts, for the chart and to go back
const REFRESH = 400; // ms between images that are shown, at least
const SPOKEN = 2500; // ms between verdicts that a screen reader is told, at least
const SETTLED = 700; // ms that a live image must have been shown to be marked
const RETRY = 1000; // ms
const LARGE = 768; // px of the longer side of the heat over the large image
const THUMBNAIL = 112; // px, as in operator.css

const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const setText = (selector, text) => { find(selector).textContent = text; };
const state = {
  verdicts: [], // oldest first; a new list for each change
  frozen: null, // the verdicts when the page was paused
  shown: null, // the verdict that is shown
  wanted: null, // that whose picture is loaded, to be shown
  map: null, // of what is shown
  shownAt: 0, drawnAt: -REFRESH, spokenAt: -SPOKEN, missed: 0, opacity: 0.5,
  online: true, lostAt: null, events: null, retry: null,
  models: new Map(), counts: null, marks: new Map(), lastMark: null,
};

const listed = () => state.frozen ?? state.verdicts;
const inPercent = (rate) => Number((100 * rate).toPrecision(2));
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });
const nameOf = (verdict) => verdict.source ?? "image without a name";

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// --- The service -----------------------------------------------------------------

async function ask(path, options = {}) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(5000), ...options });
  const json = answer.status === 204 ? null : await answer.json();
  if (answer.status === 401) setAlert("sign-in", "The service no longer knows this browser.", { link: make("a", { href: "/login", textContent: "Sign in again" }) });
  if (!answer.ok) throw new Error(json.error);
  return json;
}

function connect() {
  state.events = new EventSource("/v1/events");
  const on = (kind, use) => state.events.addEventListener(kind, ({ data }) => use(JSON.parse(data)));
  state.events.onopen = catchUp;
  state.events.onerror = disconnect;
  on("verdict", (verdict) => add([verdict]));
  on("model", putModel);
  on("unreadable", ({ error }) => setAlert("unreadable", `No verdict about a file of the watched folder. ${error}`));
  on("lost", ({ count }) => {
    setAlert("lost", `${plural(count, "verdict")} came too fast for this page. The counters include them.`);
    catchUp();
  });
}

function disconnect() {
  state.events.close();
  clearTimeout(state.retry);
  state.retry = setTimeout(connect, RETRY);
  if (state.online) state.lostAt = new Date();
  state.online = false;
  showVerdict();
}

// Get what was missed while there was no connection.
async function catchUp() {
  try {
    const [verdicts, models] = await Promise.all([ask("/v1/verdicts"), ask("/v1/models")]);
    state.online = true;
    setAlert("sign-in", null);
    models.forEach(putModel);
    add(verdicts);
    drawNow();
  } catch { disconnect(); }
}

async function keepCounting() {
  try {
    state.counts = await ask("/v1/counts");
    showCounts(state.counts);
  } catch { if (state.online) disconnect(); } // a broken cable ends no stream
  setTimeout(keepCounting, RETRY);
}

function putModel(model) {
  const { name, drift, reload_error: error } = model;
  state.models.set(name, model);
  setAlert(`reload ${name}`, error && `The new file of model ${name} is not used; the old model goes on. ${error}`);
  setAlert(`drift ${name}`, drift.alarm && `The scores of model ${name} have drifted. Check light, camera, lens and the parts themselves.`,
    { words: "Cause mended: watch anew", act: () => watchAnew(name), details: drift.text });
  draw();
}

async function watchAnew(name) {
  if (!confirm(`Is the cause mended? The monitor of model ${name} forgets what it has seen.`)) return;
  try {
    putModel(await ask(`/v1/models/${encodeURIComponent(name)}/drift`, { method: "DELETE" }));
  } catch (error) {
    setAlert("failed", `The monitor does not watch anew: ${error.message}`);
  }
}

// --- Verdicts --------------------------------------------------------------------

function add(verdicts) {
  const known = new Set(state.verdicts.map((one) => one.id));
  const added = verdicts.filter((one) => !known.has(one.id));
  const all = [...state.verdicts, ...added].sort((a, b) => a.time.localeCompare(b.time));
  state.verdicts = all.slice(-KEPT);
  if (state.frozen) state.missed += added.length;
  draw();
}

// Draw what has changed, at most once in a while.
let drawing = null;
function draw() {
  drawing ??= setTimeout(drawNow, REFRESH - performance.now() + state.drawnAt);
}

function drawNow() {
  [drawing, state.drawnAt] = [null, performance.now()];
  const newest = state.verdicts.at(-1);
  if (newest && !state.frozen && !state.wanted && newest !== state.shown) show(newest);
  drawTrend(find("#trend svg"), state.verdicts, [...state.models.values()]);
  drawStrip();
  showVerdict();
}

// Show a verdict with its picture, so that they never belong to different images.
async function show(verdict) {
  state.wanted = verdict;
  const picture = make("img", { alt: "", src: `/v1/images/${verdict.id}` });
  const tooLong = new Promise((resolve) => { setTimeout(resolve, 1000, false); });
  const isThere = await Promise.race([picture.decode().then(() => true, () => false), tooLong]);
  if (state.wanted !== verdict) return; // a person has chosen another
  const canvas = make("canvas");
  findAll(".stage > img, .stage > canvas").forEach((old) => old.remove());
  if (isThere) find(".stage").prepend(picture, canvas);
  find("#no-picture").hidden = isThere;
  setText("#no-picture", "The picture of this image is no longer kept.");
  Object.assign(state, { shown: verdict, wanted: null, shownAt: performance.now(), map: mapOf(verdict) });
  drawBoxes(isThere ? verdict : { ...verdict, regions: [] });
  paint();
  showVerdict();
  drawStrip();
  draw(); // there may be a newer one
  speak(`${ACTIONS[verdict.action].word}, ${nameOf(verdict)}`, SPOKEN);
}

// A map in units of the threshold: 255 is twice that.
const mapOf = ({ id }) => ({ uri: `/v1/images/${id}/map`, low: 0, high: 2, power: 1 });

// Draw the heat of a map over its picture; the longer side has `side` pixels.
async function paintHeat(picture, canvas, map, side, line) {
  try {
    const [values] = await Promise.all([loadMap(map), picture.decode()]);
    const sides = [picture.naturalWidth, picture.naturalHeight];
    const [width, height] = sides.map((one) => Math.ceil(one * side / Math.max(...sides)));
    drawHeat(canvas, values, 1, { opacity: state.opacity, width, height, line });
  } catch { canvas.hidden = true; } // they are no longer kept
}

function paint() {
  const [picture, canvas] = [find(".stage > img"), find(".stage > canvas")];
  if (picture) paintHeat(picture, canvas, state.map, LARGE, 5);
}

// Boxes around small regions, whose outlines one would overlook from afar.
function drawBoxes({ width, height, regions }) {
  const boxes = find(".boxes");
  const [margin, most] = [50, 6].map((part) => Math.max(width, height) / part);
  const small = regions.filter(({ box: [top, left, bottom, right] }) => Math.max(bottom - top, right - left) < most);
  boxes.replaceChildren();
  boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const layer of ["halo", "line"]) {
    small.slice(0, 50).forEach(({ box: [top, left, bottom, right] }) => {
      svg(boxes, "rect", { class: layer, x: left - margin, y: top - margin, width: right - left + 2 * margin, height: bottom - top + 2 * margin });
    });
  }
}

// Show the verdict in words, or that there is none now.
function showVerdict() {
  const { shown, frozen, online, missed, lostAt, marks } = state;
  const action = online || frozen ? shown?.action ?? "none" : "none";
  const word = ACTIONS[action]?.word ?? (online ? "WAITING" : "OFFLINE");
  find("#verdict").dataset.action = action;
  document.body.toggleAttribute("data-paused", Boolean(frozen));
  setText("#word", word);
  document.title = `${word} · Inspection`;
  find("#verdict path").setAttribute("d", ACTIONS[action]?.symbol ?? "M5 12h14");
  find("#source").title = shown ? nameOf(shown) : "";
  setText("#source", find("#source").title);
  setText("#details", shown ? [
    state.models.size > 1 && shown.model, clock(shown.time),
    shown.p_value !== null && `p-value ${Number(shown.p_value.toPrecision(3))}`,
    shown.regions.length && plural(shown.regions.length, "region"),
  ].filter(Boolean).join(" · ") : "");
  const live = frozen ? `Paused: ${plural(missed, "newer image")}` : "Live";
  setText("#mode", online ? live : `No connection since ${clock(lostAt)}. Trying again.`);
  find("#pause").firstChild.data = frozen ? "Continue " : "Pause ";
  const place = listed().indexOf(shown);
  find("#older").disabled = place < 1;
  find("#newer").disabled = !frozen || place === listed().length - 1;
  findAll("[data-mark]").forEach((button) => {
    button.disabled = !shown;
    button.setAttribute("aria-pressed", Boolean(shown) && marks.get(shown.id) === button.dataset.mark);
  });
  find("#undo").disabled = !state.lastMark;
}

// --- Strip of the last images ----------------------------------------------------

const thumbnails = new Map(); // list items by verdict

function thumbnailOf(verdict) {
  const { word, symbol } = ACTIONS[verdict.action];
  const [picture, canvas] = [make("img", { alt: "", src: `/v1/images/${verdict.id}` }), make("canvas")];
  const [sign, mark] = ["sign", "mark"].map((className) => make("span", { className }));
  svg(svg(sign, "svg", { viewBox: "0 0 24 24" }), "path", { d: symbol });
  const button = make("button", {
    type: "button", title: nameOf(verdict), ariaLabel: `${word}, ${nameOf(verdict)}`, onclick: () => goTo(verdict),
  }, picture, canvas, sign, mark);
  const [item, map] = [make("li", {}, button), mapOf(verdict)];
  item.dataset.action = verdict.action;
  item.paint = () => paintHeat(picture, canvas, map, THUMBNAIL, 1);
  item.paint();
  return item;
}

function drawStrip() {
  const [strip, list] = [find("#strip"), listed()];
  const n = Math.max(1, Math.floor(strip.clientWidth / THUMBNAIL)); // that fit
  const end = Math.max(n, list.indexOf(state.shown) + Math.ceil(n / 2));
  const within = list.slice(0, end).slice(-n).reverse(); // newest first
  const gone = [...thumbnails.keys()].filter((verdict) => !within.includes(verdict));
  gone.forEach((verdict) => { thumbnails.get(verdict).remove(); thumbnails.delete(verdict); });
  within.forEach((verdict, i) => {
    if (!thumbnails.has(verdict)) thumbnails.set(verdict, thumbnailOf(verdict));
    const item = thumbnails.get(verdict);
    if (strip.children[i] !== item) strip.insertBefore(item, strip.children[i] ?? null);
    item.firstChild.setAttribute("aria-current", verdict === state.shown);
    find(".mark", item).textContent = state.marks.get(verdict.id) ?? "";
  });
}

// --- What people do --------------------------------------------------------------

function pause() {
  if (state.frozen || !state.shown) return;
  Object.assign(state, { frozen: state.verdicts, missed: 0, wanted: null });
  showVerdict();
}

function goOn() {
  state.frozen = null;
  drawNow();
}

function goTo(verdict) {
  if (!verdict) return;
  pause();
  show(verdict);
}

const step = (by) => goTo(listed()[listed().indexOf(state.wanted ?? state.shown) + by]);

// Show the last flagged image; again, the one before it.
function goToFlagged() {
  const end = state.frozen ? listed().indexOf(state.wanted ?? state.shown) : listed().length;
  goTo(listed().slice(0, Math.max(end, 0)).findLast((verdict) => verdict.action !== "accept"));
}

function mark(label) {
  const { shown, frozen } = state;
  if (!shown || !state.counts?.collects) return;
  pause(); // so that you see what you have marked
  const isNew = !frozen && performance.now() - state.shownAt < SETTLED;
  if (isNew) tell("The image had just changed. Press again to mark this one.");
  else setMark(shown, state.marks.get(shown.id) === label ? null : label);
}

async function setMark(verdict, label) {
  const options = label
    ? { method: "POST", body: JSON.stringify({ label }), headers: { "Content-Type": "application/json" } }
    : { method: "DELETE" };
  try {
    const answer = await ask(`/v1/images/${verdict.id}/label`, options);
    if (label) state.marks.set(verdict.id, label); else state.marks.delete(verdict.id);
    state.lastMark = label && verdict;
    tell(`${label ? `Marked ${label}` : "Mark removed"}: ${nameOf(verdict)}`, answer?.file);
  } catch (error) {
    tell(`Not marked: ${error.message}`);
  }
  drawNow();
}

function tell(text, title = text) {
  Object.assign(find("#marks-said"), { textContent: text, title });
}

function pressed(event) {
  const act = {
    p: () => find("#pause").click(), u: () => find("#undo").click(), f: goToFlagged,
    g: () => mark("good"), b: () => mark("bad"), ArrowLeft: () => step(-1), ArrowRight: () => step(1),
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("input")) return;
  event.preventDefault();
  act();
}

// --- Counters, alerts, speech ----------------------------------------------------

const flaggedIn = ({ accept, warn, reject, flagged_interval: [low, high] }, words = "") => (accept + warn + reject
  ? `${inPercent((warn + reject) / (accept + warn + reject))} % (${words}${inPercent(low)} to ${inPercent(high)} %)` : "");

function showCounts({ models, started, collects }) {
  const inspected = ({ accept, warn, reject }) => accept + warn + reject;
  const sum = (count) => models.map(count).reduce((a, b) => a + b);
  findAll("[data-count]").forEach((cell) => {
    const { count } = cell.dataset;
    cell.textContent = sum(count === "inspected" ? inspected : (one) => one[count]).toLocaleString("en");
  });
  setText("#since", new Date(started).toLocaleString([], { dateStyle: "medium", timeStyle: "short", hour12: false }));
  const isOne = models.length === 1;
  find("#share").hidden = !isOne;
  if (isOne && inspected(models[0])) setText("#share", `Flagged: ${flaggedIn(models[0], "95 % interval ")}`);
  find("#counters .scroll").hidden = isOne;
  find("#models tbody").replaceChildren(...models.map((one) => make("tr", {},
    make("th", { scope: "row", className: "name", textContent: one.name }),
    ...[inspected(one), one.warn, one.reject, flaggedIn(one)].map((text) => make("td", { className: "number", textContent: text })))));
  findAll("#marks .controls, #marks-said, #caveat").forEach((element) => { element.hidden = !collects; });
  find("#how-to-mark").hidden = collects;
}

// Show an alert in the place of that of the same key, or remove it. It has a link, or
// a button with words, which closes it if nothing else is said.
function setAlert(key, text, { link, words = "Close", act = () => setAlert(key, null), details } = {}) {
  const old = findAll("#alerts > *").find((one) => one.dataset.key === key);
  if (!text) { old?.remove(); return; }
  const button = make("button", { type: "button", className: "plain", textContent: words, onclick: act });
  const alert = make("div", {}, make("p", { textContent: text }), link ?? button);
  if (details) alert.append(make("details", {}, make("summary", { textContent: "What the monitor says" }), details));
  alert.dataset.key = key;
  if (old) old.replaceWith(alert); else find("#alerts").append(alert);
}

// Tell a screen reader, but not more often than it can speak.
function speak(text, pause) {
  if (performance.now() - state.spokenAt < pause) return;
  state.spokenAt = performance.now();
  setText("#said", text);
}

const clicks = {
  "#pause": () => (state.frozen ? goOn() : pause()), "#older": () => step(-1), "#newer": () => step(1),
  "#flagged": goToFlagged, "#undo": () => setMark(state.lastMark, null),
  "[data-mark=good]": () => mark("good"), "[data-mark=bad]": () => mark("bad"),
};
Object.entries(clicks).forEach(([selector, act]) => find(selector).addEventListener("click", act));
find("#opacity").addEventListener("input", ({ target }) => {
  state.opacity = target.value / 100;
  paint();
  thumbnails.forEach((item) => item.paint());
});
document.addEventListener("keydown", pressed);
const observer = new ResizeObserver(draw);
findAll("#trend, #strip").forEach((element) => observer.observe(element));
connect();
keepCounting();
