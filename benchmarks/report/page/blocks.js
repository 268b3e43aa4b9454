// The plans of each task: columns of numbers, packed by benchmarks/report/packing.py and unpacked when they are first looked at.

const VIEWS = { f4: Float32Array, f8: Float64Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };
const unpacked = new Map();
const loaded = new Promise((resolve) => {
  if (document.readyState === "complete") resolve();
  else addEventListener("load", () => resolve(), { once: true });
});

function plansOf(task) {
  if (!unpacked.has(task.block)) unpacked.set(task.block, unpack(task));
  return unpacked.get(task.block);
}

async function unpack(task) {
  await loaded;
  const text = atob(byId(task.block).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const columns = {};
  for (const { name, dtype, offset, length } of task.columns) columns[name] = new VIEWS[dtype](buffer, offset, length);
  columns.run = new Uint16Array(task.count);
  task.runs.forEach((run, i) => columns.run.fill(i, run.start, run.start + run.count));
  columns.plan_return ??= returnsOf(task, columns);
  columns.episode_return ??= columns.plan_return;
  return columns;
}

// Utility above dense, scaled: 0 for the dense network, 1 for the best uniform setting.
function returnsOf({ w, scale, cost, dense, higher_is_better, count }, columns) {
  const metrics = columns.metric, costs = columns[cost], returns = new Float32Array(count);
  for (let row = 0; row < count; row++) {
    const relative = metrics[row] / dense.metric;
    const quality = higher_is_better ? relative : relative > 1 ? 1 / relative : 2 - relative;
    returns[row] = (w * (quality - 1) + (1 - w) * (1 - costs[row] / dense[cost])) / scale;
  }
  return returns;
}

// Number of a plan in its run, from 1; where the page holds some plans alone, it holds their numbers too.
function evaluationOf(task, columns, row) {
  return columns.evaluation ? columns.evaluation[row] : row - task.runs[columns.run[row]].start + 1;
}

function widthsOf(task, columns, row) {
  const groups = task.groups.length;
  return Array.from(columns.widths.subarray(row * groups, (row + 1) * groups));
}

function levelsOf(task, columns, row) {
  const groups = task.groups.length, part = (name) => columns[name]?.subarray(row * groups, (row + 1) * groups);
  return { bits: part("bits"), ranks: part("ranks") };
}

const COSTS = { macs: "MACs", params: "parameters", bytes: "bytes" };
