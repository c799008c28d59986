"use strict";
// Anomaly maps over pictures: gray images that are coloured here, on a canvas.

// As skad.overlays: purple at the threshold, orange, pale yellow at twice it.
const HEAT = [[120, 28, 109], [237, 105, 37], [252, 255, 164]];
const LINE = [213, 94, 0]; // vermilion

// Value of a gray level of a map {uri, low, high}.
const mapValue = (map, gray) => map.low + (gray / 255) ** 2 * (map.high - map.low);

// Load the gray levels of a map, once: {width, height, values}.
function loadMap(map) {
  map.loaded ??= new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(readGray(image, map));
    image.onerror = reject;
    image.src = map.uri;
  });
  return map.loaded;
}

function readGray(image, map) {
  const { width, height } = image;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const values = Float64Array.from({ length: width * height },
    (_, i) => mapValue(map, data[4 * i]));
  return { width, height, values };
}

// Values between the pixels of a map: (height * width) at another size, bilinear. The
// pixel of the maximum keeps it, so that an image above the threshold has an outline.
function enlarged({ width, height, values }, toWidth, toHeight) {
  const result = new Float64Array(toWidth * toHeight);
  const most = values.reduce((a, b) => Math.max(a, b));
  const along = (to, from) => Array.from({ length: to }, (_, i) => {
    const x = Math.min(Math.max((i + 0.5) * from / to - 0.5, 0), from - 1);
    const low = Math.floor(x);
    return { low, high: Math.min(low + 1, from - 1), part: x - low, near: Math.round(x) };
  });
  const columns = along(toWidth, width);
  along(toHeight, height).forEach((row, r) => columns.forEach((column, c) => {
    const mixed = (y) => values[y * width + column.low] * (1 - column.part)
      + values[y * width + column.high] * column.part;
    const isPeak = values[row.near * width + column.near] === most;
    result[r * toWidth + c] = isPeak ? most
      : mixed(row.low) * (1 - row.part) + mixed(row.high) * row.part;
  }));
  return result;
}

// Red, green and blue of heat at a degree, 0 at the threshold to 1.
function heatColour(degree) {
  const at = 2 * Math.min(Math.max(degree, 0), 1);
  const [from, to] = at < 1 ? [HEAT[0], HEAT[1]] : [HEAT[1], HEAT[2]];
  return from.map((level, i) => level + (at < 1 ? at : at - 1) * (to[i] - level));
}

// Draw heat with an opacity, 0 to 1, and an outline around what exceeds the threshold.
function drawHeat(canvas, map, threshold, { opacity, width, height, line }) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const values = enlarged(map, width, height);
  const range = Math.abs(threshold) || 1;
  const isOver = (x, y) => x >= 0 && y >= 0 && x < width && y < height
    && values[y * width + x] > threshold;
  const isLine = (x, y) => {
    for (let d = 1; d <= line; d += 1) {
      if (!isOver(x - d, y) || !isOver(x + d, y) || !isOver(x, y - d) || !isOver(x, y + d)) {
        return true;
      }
    }
    return false;
  };
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      const over = values[i] > threshold;
      const edge = over && isLine(x, y);
      const colour = edge ? LINE : heatColour((values[i] - threshold) / range);
      // Below the threshold, heat fades out.
      const near = Math.max(0, 1 - (threshold - values[i]) / range) ** 2;
      const alpha = edge ? 1 : opacity * (over ? 1 : near);
      picture.data.set([...colour, 255 * alpha], 4 * i);
    }
  }
  context.putImageData(picture, 0, 0);
}
