"use strict";
// Anomaly maps over pictures: gray images that are coloured here, on a canvas.

// As skad.overlays: purple at the threshold, orange, pale yellow at twice it.
const HEAT = [[120, 28, 109], [237, 105, 37], [252, 255, 164]];
const LINE = [213, 94, 0]; // vermilion

// Values of a map {uri, low, high}: {width, height, values}. They are read once. Its gray
// levels, 0 to 1, are values to the power 1 / 2, or 1 / power where the map says so.
const loadMap = (map) => (map.loaded ??= readMap(map));

async function readMap({ uri, low, high, power = 2 }) {
  const [image, canvas] = [new Image(), document.createElement("canvas")];
  image.src = uri;
  await image.decode();
  const { width, height } = Object.assign(canvas, { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const value = (_, i) => low + (data[4 * i] / 255) ** power * (high - low);
  return { width, height, values: Float64Array.from({ length: width * height }, value) };
}

// Of each of `to` pixels, those of `from` that it lies between, and which is nearest.
function placesBetween(to, from) {
  return Array.from({ length: to }, (_, i) => {
    const x = Math.min(Math.max((i + 0.5) * from / to - 0.5, 0), from - 1);
    const low = Math.floor(x);
    return { low, high: Math.min(low + 1, from - 1), part: x - low, near: Math.round(x) };
  });
}

// A map at another size, bilinear. The pixel of its maximum keeps it, so that every
// image above the threshold has an outline.
function resizedMap({ width, height, values }, toWidth, toHeight) {
  const result = new Float64Array(toWidth * toHeight);
  const most = values.reduce((a, b) => Math.max(a, b));
  const columns = placesBetween(toWidth, width);
  placesBetween(toHeight, height).forEach((row, r) => {
    const [above, below, near] = [row.low, row.high, row.near].map((y) => y * width);
    columns.forEach(({ low, high, part, near: x }, c) => {
      const top = values[above + low] * (1 - part) + values[above + high] * part;
      const bottom = values[below + low] * (1 - part) + values[below + high] * part;
      result[r * toWidth + c] = values[near + x] === most ? most
        : top * (1 - row.part) + bottom * row.part;
    });
  });
  return result;
}

// Colour of heat at a degree, from 0 at the threshold to 1.
function heatColour(degree) {
  const at = 2 * Math.min(Math.max(degree, 0), 1);
  const [from, to] = at < 1 ? [HEAT[0], HEAT[1]] : [HEAT[1], HEAT[2]];
  return from.map((level, i) => level + (at < 1 ? at : at - 1) * (to[i] - level));
}

// Draw heat with an opacity, 0 to 1, and an outline inside what exceeds the threshold.
function drawHeat(canvas, map, threshold, { opacity, width, height, line }) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const values = resizedMap(map, width, height);
  const range = Math.abs(threshold) || 1;
  const colours = Array.from({ length: 256 }, (_, i) => heatColour(i / 255));
  const isOver = (x, y) => x >= 0 && y >= 0 && x < width && y < height
    && values[y * width + x] > threshold;
  const isEdge = (x, y) => !(isOver(x - line, y) && isOver(x + line, y)
    && isOver(x, y - line) && isOver(x, y + line));
  for (let i = 0; i < values.length; i += 1) {
    const degree = (values[i] - threshold) / range;
    let [colour, alpha] = [colours[Math.min(Math.max(Math.round(255 * degree), 0), 255)], opacity];
    if (degree <= 0) {
      alpha *= Math.max(0, 1 + 2 * degree) ** 2; // heat fades out, to half the threshold
    } else if (isEdge(i % width, Math.floor(i / width))) {
      [colour, alpha] = [LINE, 1];
    }
    [picture.data[4 * i], picture.data[4 * i + 1], picture.data[4 * i + 2]] = colour;
    picture.data[4 * i + 3] = 255 * alpha;
  }
  context.putImageData(picture, 0, 0);
}
