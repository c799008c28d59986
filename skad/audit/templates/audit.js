// The audit: ticks of a person, an enlarged view, the list of what to leave out.

const PATHS = JSON.parse(document.getElementById("paths").textContent);
const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const cards = findAll("#gallery > .card");
const dialog = find("#enlarged");
const ticked = new Set(); // places of images
let isSaved = true;
let open = 0; // number of the enlarged card

function tick(place, isOut) {
  if (isOut) ticked.add(place); else ticked.delete(place);
  isSaved = ticked.size === 0;
  findAll(`input[data-place="${place}"]`).forEach((box) => { box.checked = isOut; });
  findAll(`.card[data-place="${place}"]`).forEach((card) => card.classList.toggle("out", isOut));
  find("#count").textContent = `${ticked.size || "Nothing"} ${ticked.size > 1 ? "are" : "is"} ticked.`;
  find("#export").disabled = ticked.size === 0;
}

// RFC 4180: a path may hold commas, quotes and line ends.
function exportList() {
  const lines = [...ticked].sort((a, b) => a - b).map((i) => `"${PATHS[i].replaceAll('"', '""')}"`);
  const file = new Blob([["path", ...lines, ""].join("\n")], { type: "text/csv" });
  const href = URL.createObjectURL(file);
  Object.assign(document.createElement("a"), { href, download: "exclude.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
  isSaved = true;
}

function enlarge(number) {
  open = (number + cards.length) % cards.length;
  const { place } = cards[open].dataset;
  find("#enlarged-name").textContent = find(".name", cards[open]).textContent;
  find(".stage", dialog).replaceChildren(find(".picture", cards[open]).cloneNode(true));
  const box = find("input", dialog);
  Object.assign(box, { checked: ticked.has(Number(place)) }).dataset.place = place;
  if (!dialog.open) dialog.showModal();
}

cards.forEach((card, number) => find("button", card).addEventListener("click", () => enlarge(number)));
document.addEventListener("change", ({ target }) => {
  if (target.dataset.place) tick(Number(target.dataset.place), target.checked);
  if (target.id === "boxed") find(".stage").classList.toggle("plain", !target.checked);
});
findAll("[data-step]").forEach((button) => {
  button.addEventListener("click", () => enlarge(open + Number(button.dataset.step)));
});
dialog.addEventListener("keydown", ({ key }) => {
  if (key === "ArrowLeft") enlarge(open - 1);
  if (key === "ArrowRight") enlarge(open + 1);
});
find("#close").addEventListener("click", () => dialog.close());
find("#export").addEventListener("click", exportList);
window.addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
