"use strict";
// The operator's page: the last verdicts as they come, counters, marks.

const ACTIONS = { // the symbols are paths in a box of 24 x 24
  accept: { word: "GOOD", symbol: "M4 13l5.5 5.5L20 6" },
  warn: { word: "CHECK", symbol: "M12 3v11M12 19v1" },
  reject: { word: "REJECT", symbol: "M5 5l14 14M19 5L5 19" },
};
const KEPT = 500; // verdicts, for the chart and to go back
const REFRESH = 250; // ms between images that are shown, at least
const SPOKEN = 2500; // ms between verdicts that a screen reader is told
const SETTLED = 700; // ms that an image must have been shown to be marked at once
const RETRY = 1000; // ms
const THUMBNAIL = 112; // px, as in operator.css

const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const state = {
  verdicts: [], // oldest first
  frozen: null, // the verdicts when the page was paused
  shown: null, // the verdict whose image is shown
  wanted: null, // that whose image is loaded
  shownAt: 0, drawnAt: -REFRESH, missed: 0, opacity: 0.5, online: false, lostAt: null,
  models: new Map(), marks: new Map(), lastMark: null, counts: null, spokenAt: -SPOKEN,
};

const listed = () => state.frozen ?? state.verdicts;
const isFlagged = (verdict) => verdict.action !== "accept";
const inDigits = (value) => `${Number(value.toPrecision(3))}`;
const percent = (rate) => `${(100 * rate).toFixed(1)} %`;
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });
const nameOf = (verdict) => verdict.source ?? "image without a name";

function make(name, properties = {}, children = []) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// --- The service -----------------------------------------------------------------

async function ask(path, options = {}) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(5000), ...options });
  const json = answer.status === 204 ? null : await answer.json();
  if (answer.status === 401) setAlert("sign-in", "The service no longer knows this browser.", { href: "/login", text: "Sign in again" });
  if (!answer.ok) throw new Error(json.error);
  return json;
}

let events = null;
let retry = null;

function connect() {
  events = new EventSource("/v1/events");
  const on = (kind, use) => events.addEventListener(kind, (event) => use(JSON.parse(event.data)));
  events.onopen = catchUp;
  events.onerror = disconnect;
  on("verdict", (verdict) => add([verdict]));
  on("model", putModel);
  on("unreadable", ({ error }) => setAlert("unreadable", `No verdict for a file of the watched folder. ${error}`));
  on("lost", ({ count }) => {
    setAlert("lost", `${count} verdicts came too fast for this page. The counters include them.`);
    catchUp();
  });
}

function disconnect() {
  events.close();
  clearTimeout(retry);
  retry = setTimeout(connect, RETRY);
  if (state.online) state.lostAt = new Date();
  state.online = false;
  showHeader();
}

// Get what was missed while there was no connection.
async function catchUp() {
  try {
    const [verdicts, models] = await Promise.all([ask("/v1/verdicts"), ask("/v1/models")]);
    models.forEach(putModel);
    add(verdicts.reverse());
    state.online = true;
    setAlert("sign-in", null);
    showHeader();
  } catch { disconnect(); }
}

async function keepCounting() {
  try {
    state.counts = await ask("/v1/counts");
    showCounts();
  } catch { if (state.online) disconnect(); } // a broken cable ends no stream
  setTimeout(keepCounting, RETRY);
}

function putModel(model) {
  const { name, drift, reload_error: error } = model;
  state.models.set(name, model);
  setAlert(`reload ${name}`, error && `The new file of model ${name} is not used; the old model goes on. ${error}`);
  setAlert(`drift ${name}`, drift?.alarm ? `Drift of model ${name}. ${drift.text} Check light, camera, lens and the parts themselves. Then watch anew.` : null,
    { text: "Cause mended: watch anew", act: () => restartMonitor(name) });
  draw();
}

async function restartMonitor(name) {
  if (!confirm(`Is the cause mended? The monitor of model ${name} forgets what it has seen.`)) return;
  try {
    putModel(await ask(`/v1/models/${encodeURIComponent(name)}/drift`, { method: "DELETE" }));
  } catch (error) {
    setAlert("failed", `The monitor was not restarted: ${error.message}`);
  }
}

// --- Verdicts --------------------------------------------------------------------

function add(verdicts) {
  const known = new Set(state.verdicts.map((one) => one.id));
  const added = verdicts.filter((one) => !known.has(one.id));
  if (!added.length) return;
  const order = (a, b) => a.time.localeCompare(b.time);
  state.verdicts = [...state.verdicts, ...added].sort(order).slice(-KEPT);
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
  if (!state.frozen && !state.wanted && state.verdicts.length) show(state.verdicts.at(-1));
  drawTrend(find("#trend svg"), state.verdicts, [...state.models.values()]);
  showHeader();
}

// Show a verdict and its picture at once, so that they never belong to different images.
async function show(verdict) {
  if (state.shown === verdict) { drawStrip(); return; }
  state.wanted = verdict; // until it is shown
  const picture = Object.assign(new Image(), { alt: "", src: `/v1/images/${verdict.id}` });
  const isThere = await Promise.race([
    picture.decode().then(() => true, () => false),
    new Promise((resolve) => { setTimeout(resolve, 1000, false); }),
  ]);
  if (state.wanted !== verdict) return; // a person has chosen another
  const canvas = document.createElement("canvas");
  findAll(".stage > img, .stage > canvas").forEach((old) => old.remove());
  find(".stage").prepend(picture, canvas);
  picture.hidden = canvas.hidden = !isThere;
  find("#no-picture").hidden = isThere;
  find("#no-picture").textContent = `No picture: the service keeps the last ${state.counts?.images ?? ""} images.`;
  Object.assign(state, { shown: verdict, wanted: null, shownAt: performance.now() });
  state.map = isThere ? mapOf(verdict) : null;
  drawBoxes(isThere ? verdict : { ...verdict, regions: [] });
  paint();
  showHeader();
  drawStrip();
  speak(`${ACTIONS[verdict.action].word}, ${nameOf(verdict)}`, SPOKEN);
  if (!state.frozen && verdict !== state.verdicts.at(-1)) draw();
}

// A map in units of the threshold: 255 is twice the threshold.
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
  if (state.map) paintHeat(find(".stage > img"), find(".stage > canvas"), state.map, 768, 5);
}

// Boxes around small regions, whose outlines one would overlook from afar.
function drawBoxes({ width, height, regions }) {
  const boxes = find(".boxes");
  boxes.replaceChildren();
  boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const [margin, most] = [50, 6].map((part) => Math.max(width, height) / part);
  const small = regions.filter(({ box: [top, left, bottom, right] }) => Math.max(bottom - top, right - left) < most);
  for (const layer of ["halo", "line"]) {
    small.slice(0, 50).forEach(({ box: [top, left, bottom, right] }) => {
      svg(boxes, "rect", { class: layer, x: left - margin, y: top - margin, width: right - left + 2 * margin, height: bottom - top + 2 * margin });
    });
  }
}

function showHeader() {
  const { shown, frozen } = state;
  const action = state.online || frozen ? shown?.action ?? "none" : "none";
  find("#verdict").dataset.action = action;
  document.body.toggleAttribute("data-paused", Boolean(frozen));
  const word = ACTIONS[action]?.word ?? (state.online ? "WAITING" : "OFFLINE");
  find("#word").textContent = word;
  find("#verdict path").setAttribute("d", ACTIONS[action]?.symbol ?? "M5 12h14");
  document.title = `${word} · Inspection`;
  find("#source").textContent = find("#source").title = shown ? nameOf(shown) : "";
  find("#details").textContent = shown ? [
    state.models.size > 1 ? shown.model : null, clock(shown.time),
    shown.p_value === null ? null : `p-value ${inDigits(shown.p_value)}`,
    shown.regions.length ? `${shown.regions.length} region${shown.regions.length > 1 ? "s" : ""}` : null,
  ].filter(Boolean).join(" · ") : "";
  find("#mode").textContent = !state.online ? `No connection${state.lostAt ? ` since ${clock(state.lostAt)}` : ""}. Trying again.`
    : frozen ? `Paused: ${state.missed} newer image${state.missed === 1 ? "" : "s"}` : "Live";
  find("#pause").firstChild.data = frozen ? "Continue " : "Pause ";
  find("#pause").setAttribute("aria-pressed", Boolean(frozen));
  const place = listed().indexOf(shown);
  find("#older").disabled = place < 1;
  find("#newer").disabled = !frozen || place === listed().length - 1;
  showMarks();
}

// --- Strip of the last images ----------------------------------------------------

const thumbnails = new Map(); // list items by id

function thumbnailOf(verdict) {
  const { word, symbol } = ACTIONS[verdict.action];
  const picture = make("img", { alt: "", src: `/v1/images/${verdict.id}` });
  const canvas = make("canvas");
  const sign = make("span", { className: "sign" });
  svg(svg(sign, "svg", { viewBox: "0 0 24 24", "aria-hidden": true }), "path", { d: symbol });
  const button = make("button", { type: "button", title: nameOf(verdict) }, [make("span", { className: "picture" }, [picture, canvas]), sign, make("span", { className: "mark" })]);
  button.setAttribute("aria-label", `${word}, ${nameOf(verdict)}`);
  button.addEventListener("click", () => goTo(verdict));
  const item = make("li", {}, [button]);
  item.dataset.action = verdict.action;
  const map = mapOf(verdict);
  item.paint = () => paintHeat(picture, canvas, map, THUMBNAIL, 1);
  item.paint();
  return item;
}

function drawStrip() {
  const strip = find("#strip");
  const n = Math.max(1, Math.floor(strip.clientWidth / THUMBNAIL)); // that fit
  const list = listed();
  const place = Math.max(list.indexOf(state.shown), 0);
  const last = Math.max(Math.min(place + Math.ceil(n / 2), list.length), Math.min(n, list.length));
  const within = list.slice(Math.max(0, last - n), last).reverse(); // newest first
  const ids = new Set(within.map((one) => one.id));
  [...thumbnails.keys()].filter((id) => !ids.has(id)).forEach((id) => { thumbnails.get(id).remove(); thumbnails.delete(id); });
  within.forEach((verdict, i) => {
    if (!thumbnails.has(verdict.id)) thumbnails.set(verdict.id, thumbnailOf(verdict));
    const item = thumbnails.get(verdict.id);
    if (strip.children[i] !== item) strip.insertBefore(item, strip.children[i] ?? null);
    item.firstChild.setAttribute("aria-current", verdict === state.shown);
    find(".mark", item).textContent = state.marks.get(verdict.id) ?? "";
  });
}

// --- What people do --------------------------------------------------------------

function pause() {
  if (state.frozen || !state.verdicts.length) return;
  Object.assign(state, { frozen: state.verdicts, missed: 0 });
  showHeader();
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

const step = (by) => goTo(listed()[listed().indexOf(state.shown) + by]);

// Show the last flagged image; again, the one before it.
function goToFlagged() {
  const place = state.frozen ? listed().indexOf(state.shown) : listed().length;
  const flagged = listed().slice(0, Math.max(place, 0)).findLast(isFlagged);
  if (flagged) goTo(flagged);
  else speak("No earlier image was flagged.");
}

async function mark(label) {
  const { shown, frozen } = state;
  if (!shown || !state.counts?.collects) return;
  pause(); // so that you see what you have marked
  if (!frozen && performance.now() - state.shownAt < SETTLED) {
    tell("The image had just changed. Press again to mark this one.");
    return;
  }
  await setMark(shown, state.marks.get(shown.id) === label ? null : label);
}

async function setMark(verdict, label) {
  const path = `/v1/images/${verdict.id}/label`;
  const json = { method: "POST", body: JSON.stringify({ label }), headers: { "Content-Type": "application/json" } };
  try {
    const answer = await ask(path, label ? json : { method: "DELETE" });
    if (label) state.marks.set(verdict.id, label); else state.marks.delete(verdict.id);
    state.lastMark = label ? verdict : null;
    tell(label ? `Marked ${label}: ${answer.file}` : `Mark removed: ${nameOf(verdict)}`);
  } catch (error) {
    tell(`Not marked: ${error.message}`);
  }
  showMarks();
  drawStrip();
}

function showMarks() {
  const label = state.marks.get(state.shown?.id);
  findAll("[data-mark]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.mark === label));
  findAll("[data-mark]").forEach((button) => { button.disabled = !state.shown; });
  find("#undo").disabled = !state.lastMark;
}

function tell(text) {
  find("#marks-said").textContent = text;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("input")) return;
  const act = {
    p: () => find("#pause").click(), f: goToFlagged, ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    g: () => mark("good"), b: () => mark("bad"), u: () => find("#undo").click(),
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

// --- Counters, alerts, speech ----------------------------------------------------

const flaggedIn = ({ accept, warn, reject, flagged_interval: [low, high] }, words = "") => {
  const n = accept + warn + reject;
  return n ? `${percent((warn + reject) / n)} (${words}${(100 * low).toFixed(1)} to ${percent(high)})` : "";
};

function showCounts() {
  const { models, started, collects } = state.counts;
  const sum = (action) => models.reduce((total, one) => total + one[action], 0);
  const counts = { accept: sum("accept"), warn: sum("warn"), reject: sum("reject") };
  counts.inspected = counts.accept + counts.warn + counts.reject;
  findAll("[data-count]").forEach((cell) => { cell.textContent = counts[cell.dataset.count].toLocaleString("en"); });
  find("#since").textContent = new Date(started).toLocaleString([], { dateStyle: "medium", timeStyle: "short", hour12: false });
  find("#share").hidden = models.length > 1;
  if (counts.inspected) find("#share").textContent = `Flagged: ${flaggedIn(models[0], "95 % interval ")}`;
  find("#counters .scroll").hidden = models.length === 1;
  find("#models tbody").replaceChildren(...models.map((one) => {
    const cells = [one.accept + one.warn + one.reject, one.warn, one.reject, flaggedIn(one)];
    return make("tr", {}, [make("th", { scope: "row", className: "name", textContent: one.name }),
      ...cells.map((text) => make("td", { className: "number", textContent: text }))]);
  }));
  find("#marks .controls").hidden = !collects;
  find("#how-to-mark").hidden = collects;
  find("#caveat").hidden = !collects;
}

// Show an alert in the place of that of the same key, or remove it; `way` is a link or
// a button, else the alert can be closed.
function setAlert(key, text, way = { text: "Close", act: () => setAlert(key, null) }) {
  const old = findAll("#alerts > *").find((one) => one.dataset.key === key);
  if (!text) { old?.remove(); return; }
  const control = way.href ? make("a", { href: way.href, textContent: way.text })
    : make("button", { type: "button", className: "plain", textContent: way.text, onclick: way.act });
  const alert = make("div", {}, [make("p", { textContent: text }), control]);
  alert.dataset.key = key;
  if (old) old.replaceWith(alert); else find("#alerts").append(alert);
}

// Tell a screen reader, but not more often than it can speak.
function speak(text, pause = 0) {
  if (performance.now() - state.spokenAt < pause) return;
  state.spokenAt = performance.now();
  find("#said").textContent = text;
}

function listen() {
  find("#pause").addEventListener("click", () => (state.frozen ? goOn() : pause()));
  find("#older").addEventListener("click", () => step(-1));
  find("#newer").addEventListener("click", () => step(1));
  find("#flagged").addEventListener("click", goToFlagged);
  find("#undo").addEventListener("click", () => setMark(state.lastMark, null));
  findAll("[data-mark]").forEach((button) => button.addEventListener("click", () => mark(button.dataset.mark)));
  find("#opacity").addEventListener("input", ({ target }) => {
    state.opacity = target.value / 100;
    paint();
    thumbnails.forEach((item) => item.paint());
  });
  document.addEventListener("keydown", pressed);
  const observer = new ResizeObserver(drawNow);
  findAll("#trend, #strip").forEach((element) => observer.observe(element));
}

listen();
connect();
keepCounting();
