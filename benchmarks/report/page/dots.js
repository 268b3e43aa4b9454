// Tens of thousands of dots on a canvas, and the index that finds the one under the pointer.

const CELL = 12; // pixels; the index looks up what lies within two cells of the pointer
const OPACITY = 0.6;
const CROWD = 6; // dots on one pixel: further ones would change nothing that can be seen
const STRIDE = 7919; // a prime: visits plans in a scattered order, so that no agent covers the others

// Where each drawn plan lies, and an index of them by cells of the canvas.
function placed(current, columns, cost, axes) {
  const count = current.count, visible = visibleRuns(current);
  const x = new Float32Array(count), y = new Float32Array(count), drawn = new Uint8Array(count);
  const across = Math.ceil(axes.width / CELL) + 1, cells = across * (Math.ceil(axes.height / CELL) + 1);
  const starts = new Uint32Array(cells + 1), cell = new Uint32Array(count);
  let shownCount = 0, total = 0;
  for (let row = 0; row < count; row++) {
    if (!visible[columns.run[row]]) continue;
    total++;
    const px = axes.x(cost.relative[row]), py = axes.y(columns.metric[row]);
    if (!(px >= axes.left && px <= axes.right && py >= axes.top && py <= axes.bottom)) continue;
    x[row] = px;
    y[row] = py;
    drawn[row] = 1;
    cell[row] = Math.floor(py / CELL) * across + Math.floor(px / CELL);
    starts[cell[row] + 1]++;
    shownCount++;
  }
  for (let i = 0; i < cells; i++) starts[i + 1] += starts[i];
  const members = new Uint32Array(shownCount), next = starts.slice();
  for (let row = 0; row < count; row++) if (drawn[row]) members[next[cell[row]]++] = row;
  return { x, y, drawn, starts, members, across, cells, shown: shownCount, total };
}

function nearestPlan(points, px, py) {
  let best = null, distance = (2 * CELL) ** 2;
  const column = Math.floor(px / CELL), line = Math.floor(py / CELL);
  for (let j = line - 2; j <= line + 2; j++) {
    for (let i = Math.max(0, column - 2); i <= Math.min(points.across - 1, column + 2); i++) {
      const at = j * points.across + i;
      if (at < 0 || at >= points.cells) continue;
      for (let k = points.starts[at]; k < points.starts[at + 1]; k++) {
        const row = points.members[k], d = (points.x[row] - px) ** 2 + (points.y[row] - py) ** 2;
        if (d < distance) [best, distance] = [row, d];
      }
    }
  }
  return best;
}

// The dots, blended pixel by pixel: for tens of thousands of them that is many times quicker than to draw each.
function paint(current, columns, points, axes) {
  const ratio = window.devicePixelRatio || 1, width = Math.round(axes.width * ratio), height = Math.round(axes.height * ratio);
  const canvas = el("canvas", { width, height, "aria-hidden": "true" });
  canvas.style.cssText = `left:0;top:0;width:${axes.width}px;height:${axes.height}px`;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), radius = points.shown > 5000 ? 2.4 : 3.4;
  const stamps = new Map();
  for (const { agent } of current.runs) if (!stamps.has(agent)) stamps.set(agent, stamp(agent, radius * ratio, width));
  const byRun = current.runs.map((run) => stamps.get(run.agent)), count = current.count;
  const stride = count % STRIDE ? STRIDE : 1, crowd = new Uint32Array(width * height);
  for (let k = 0, row = 0; k < count; k++, row = (row + stride) % count) {
    if (!points.drawn[row]) continue;
    const centre = Math.round(points.y[row] * ratio) * width + Math.round(points.x[row] * ratio);
    if (crowd[centre]++ < CROWD) blend(image.data, byRun[columns.run[row]], centre);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// One agent's marker as pixels: where each lies relative to the centre in an image of `width`, and how much it covers, 0 to 1.
function stamp(name, radius, width) {
  const half = Math.ceil(1.4 * radius + 1), size = 2 * half + 1;
  const context = el("canvas", { width: size, height: size }).getContext("2d", { willReadFrequently: true }), look = style(name);
  context.translate(half + 0.5, half + 0.5);
  context.fillStyle = resolved(look.colour);
  context.fill(new Path2D(look.marker(radius)));
  const { data } = context.getImageData(0, 0, size, size), offsets = [], covers = [];
  let colour = [0, 0, 0];
  for (let i = 0; i < size * size; i++) {
    if (!data[4 * i + 3]) continue;
    offsets.push((Math.floor(i / size) - half) * width + (i % size) - half);
    covers.push((OPACITY * data[4 * i + 3]) / 255);
    if (data[4 * i + 3] === 255) colour = [...data.subarray(4 * i, 4 * i + 3)];
  }
  return { offsets: Int32Array.from(offsets), covers: Float32Array.from(covers), colour };
}

// Lay a stamp over what is there (Porter and Duff's "over").
function blend(pixels, { offsets, covers, colour: [red, green, blue] }, centre) {
  for (let i = 0; i < offsets.length; i++) {
    const at = 4 * (centre + offsets[i]), cover = covers[i], below = (pixels[at + 3] / 255) * (1 - cover), all = cover + below;
    pixels[at] = (red * cover + pixels[at] * below) / all;
    pixels[at + 1] = (green * cover + pixels[at + 1] * below) / all;
    pixels[at + 2] = (blue * cover + pixels[at + 2] * below) / all;
    pixels[at + 3] = 255 * all;
  }
}

