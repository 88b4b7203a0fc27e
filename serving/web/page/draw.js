// An X-ray through its window, and what systems show on it: the same on screen and in the PDF.

/** In the order of the systems: those of overlays and reports. */
export const COLOURS = ["#e06c00", "#1f8fd6", "#c763a2", "#009e73", "#8424fc", "#d8003c", "#30783c", "#c018a8", "#6054d8"];
export const MAP_OPACITY = 0.6;
/** Of the map's scale, the same for all images. */
export const CONTOURS = [0.25, 0.5, 0.75];
const FINE = 8;  // contour points a cell
const LEAST_CONTOURED = 8;  // cells a side; of fewer the peak's cell is drawn, as in overlays and reports
export const isCoarse = (map) => Math.min(map.values.length, map.values[0].length) < LEAST_CONTOURED;
export const colourOf = (place) => COLOURS[place % COLOURS.length];

/** Grey of each stored value, linear between the window's ends, as RGBA words. */
function lookup(image, { low, high, invert }) {
  const table = new Uint32Array(image.highest + 1);
  const width = Math.max(high - low, 1e-6);
  for (let value = 0; value < table.length; value += 1) {
    const share = Math.min(Math.max((value - low) / width, 0), 1);
    const grey = Math.round(255 * (invert ? 1 - share : share));
    table[value] = (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
  }
  return table;
}

/** Draw an image through its window into a canvas of its own size. */
export function develop(image, window, canvas = document.createElement("canvas")) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    [canvas.width, canvas.height] = [image.width, image.height];
  }
  const context = canvas.getContext("2d");
  const data = context.createImageData(image.width, image.height);
  const [words, table, values] = [new Uint32Array(data.data.buffer), lookup(image, window), image.values];
  for (let place = 0; place < values.length; place += 1) words[place] = table[values[place]];
  context.putImageData(data, 0, 0);
  return canvas;
}

/** Values between which the middle `share` of the pixels lies. */
export function middle(image, share) {
  const counts = new Uint32Array(image.highest + 1);
  for (const value of image.values) counts[value] += 1;
  const tail = ((1 - share) / 2) * image.values.length;
  const reach = (start, step) => {
    let [value, seen] = [start, counts[start]];
    while (seen <= tail && value + step >= 0 && value + step < counts.length) {
      value += step;
      seen += counts[value];
    }
    return value;
  };
  const [low, high] = [reach(0, 1), reach(image.highest, -1)];
  return high > low ? { low, high } : { low: image.lowest, high: Math.max(image.highest, image.lowest + 1) };
}

const maps = new WeakMap();

/** A map as a small canvas, one pixel a cell (colour of the system, opacity by value), and its contours. */
function drawable(map, colour) {
  const known = maps.get(map);
  if (known?.colour === colour) return known;
  const [rows, columns] = [map.values.length, map.values[0].length];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const data = context.createImageData(columns, rows);
  const [red, green, blue] = [1, 3, 5].map((start) => Number.parseInt(colour.slice(start, start + 2), 16));
  const coarse = isCoarse(map);
  const flat = map.values.flat();
  const peak = flat.indexOf(Math.max(...flat));
  flat.forEach((value, place) => {
    if (coarse && place !== peak) return;
    data.data.set([red, green, blue, Math.round(140 * Math.min(Math.max(value, 0), 1))], 4 * place);
  });
  context.putImageData(data, 0, 0);
  const contours = coarse ? (flat[peak] >= CONTOURS[0] ? [outline(peak, rows, columns)] : []) : CONTOURS.map((level) => contour(map.values, level));
  const made = { colour, canvas, contours, coarse };
  maps.set(map, made);
  return made;
}

/** The four sides of a cell, as shares of the map's frame. */
function outline(place, rows, columns) {
  const [row, column] = [Math.floor(place / columns), place % columns];
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([across, down]) => [(column + across) / columns, (row + down) / rows]);
  return corners.map((corner, number) => [corner, corners[(number + 1) % 4]]);
}

/** A value between the centres of cells, as the canvas draws it. */
function between(values, y, x) {
  const at = (place, count) => {
    const low = Math.min(Math.max(Math.floor(place), 0), count - 1);
    return [low, Math.min(low + 1, count - 1), Math.min(Math.max(place - low, 0), 1)];
  };
  const [top, bottom, down] = at(y, values.length);
  const [left, right, across] = at(x, values[0].length);
  const row = (each) => values[each][left] * (1 - across) + values[each][right] * across;
  return row(top) * (1 - down) + row(bottom) * down;
}

/** Where the map crosses a level: short lines, as shares of its frame (marching squares). */
function contour(values, level) {
  const [rows, columns] = [values.length * FINE, values[0].length * FINE];
  const grid = Array.from({ length: rows + 1 }, (_, row) => Array.from({ length: columns + 1 },
    (__, column) => between(values, row / FINE - 0.5, column / FINE - 0.5) - level));
  const lines = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const corners = [[0, 0], [0, 1], [1, 1], [1, 0]].map(([down, right]) => [row + down, column + right]);
      const points = [];
      corners.forEach(([y, x], place) => {
        const [endY, endX] = corners[(place + 1) % 4];
        const [here, there] = [grid[y][x], grid[endY][endX]];
        if (here >= 0 === there >= 0) return;
        const share = here / (here - there);
        points.push([(x + (endX - x) * share) / columns, (y + (endY - y) * share) / rows]);
      });
      for (let place = 0; place + 1 < points.length; place += 2) lines.push([points[place], points[place + 1]]);
    }
  }
  return lines;
}

function drawMap(context, place, map, colour, unit) {
  const { canvas, contours, coarse } = drawable(map, colour);
  const { x1, y1, x2, y2 } = map.frame;
  const [x, y, width, height] = [place.x + x1 * place.scale, place.y + y1 * place.scale, (x2 - x1) * place.scale, (y2 - y1) * place.scale];
  context.imageSmoothingEnabled = !coarse;
  context.drawImage(canvas, x, y, width, height);
  context.imageSmoothingEnabled = true;
  context.globalAlpha = Math.min(1.4 * context.globalAlpha, 1);
  contours.forEach((lines, rank) => {
    const path = new Path2D();
    for (const [from, to] of lines) {
      path.moveTo(x + from[0] * width, y + from[1] * height);
      path.lineTo(x + to[0] * width, y + to[1] * height);
    }
    context.lineCap = "round";
    for (const [style, thick] of [["#000a", 2.2 + 0.7 * rank], [colour, 1 + 0.6 * rank]]) {
      [context.strokeStyle, context.lineWidth] = [style, thick * unit];
      context.stroke(path);
    }
  });
}

/**
 * Draw an image and its marks.
 * @param place where the image's origin lies, and its scale: `{x, y, scale}` in pixels of the canvas
 * @param marks by system `{answer, colour, boxes, map, chosen}`: opacities from 0 to 1, the chosen box
 * @param unit pixels of the canvas in a CSS pixel
 */
export function paint(context, size, image, place, marks, unit = 1) {
  const [width, height] = [image.width * place.scale, image.height * place.scale];
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, size.width, size.height);
  context.imageSmoothingEnabled = place.scale < 6 * unit;
  context.imageSmoothingQuality = "high";
  context.drawImage(image.canvas, place.x, place.y, width, height);
  context.save();
  context.beginPath();
  context.rect(place.x, place.y, width, height);
  context.clip();
  context.imageSmoothingEnabled = true;
  for (const { answer, colour, map } of marks) {
    if (!answer.map || !map) continue;
    context.globalAlpha = map;
    drawMap(context, place, answer.map, colour, unit);
  }
  context.restore();
  context.globalAlpha = 1;
  const texts = [];
  for (const mark of marks) if (mark.boxes) drawBoxes(context, size, place, mark, unit, texts);
}

function drawBoxes(context, size, place, { answer, colour, boxes, chosen }, unit, texts) {
  context.save();
  context.globalAlpha = boxes;
  context.lineJoin = "round";
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  answer.boxes.forEach((box, number) => {
    const [x, y] = [place.x + box.x1 * place.scale, place.y + box.y1 * place.scale];
    const [width, height] = [(box.x2 - box.x1) * place.scale, (box.y2 - box.y1) * place.scale];
    const line = (number === chosen ? 4 : 2) * unit;
    for (const [style, thick] of [["#000c", line + 2.4 * unit], [colour, line]]) {
      [context.strokeStyle, context.lineWidth] = [style, thick];
      context.strokeRect(x, y, width, height);
    }
    const text = box.score.toFixed(2);
    const corner = free(texts, { x, y, width, height }, context.measureText(text).width, 16 * unit, size);
    [context.strokeStyle, context.lineWidth, context.fillStyle] = ["#000", 3 * unit, colour];
    context.strokeText(text, corner.x, corner.y);
    context.fillText(text, corner.x, corner.y);
  });
  context.restore();
}

/** Where a box's score stands: above it, below it or in it, clear of the scores before. */
function free(texts, box, wide, high, size) {
  const x = Math.min(Math.max(box.x, 2), Math.max(size.width - wide - 2, 2));
  const heights = [box.y - 3, box.y + box.height + high + 1, box.y + high + 2, box.y + box.height - 3];
  const fits = (y) => y - high >= 0 && y <= size.height
    && texts.every((text) => Math.abs(text.y - y) >= high || x >= text.x + text.wide || text.x >= x + wide);
  const y = heights.find(fits) ?? heights[0];
  texts.push({ x, y, wide });
  return { x, y };
}
