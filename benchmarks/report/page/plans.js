// Every plan of a task: cost against metric, with the front of the plans that no other beats in both.

const RANGES = { useful: ["within 25\u00a0% of dense", 0.75], close: ["within 5\u00a0% of dense", 0.95], all: ["everything", 0] };

const scatter = { drawing: 0, task: null, columns: null, cost: null, front: [], points: null };

async function drawPlans() {
  const host = byId("plans-chart"), current = task(), drawing = ++scatter.drawing;
  if (!current?.count) {
    scatter.task = null;
    host.replaceChildren(el("p", { class: "empty" }, "No plan was evaluated."));
    byId("front-table").replaceChildren();
    byId("plans-lead").textContent = "";
    return;
  }
  const columns = await plansOf(current);
  if (drawing !== scatter.drawing) return; // something else was chosen meanwhile
  const cost = relativeCost(current, columns, state.cost);
  const front = frontOf(current, columns, cost);
  const axes = plansFrame(host, current, columns, front, cost);
  const points = placed(current, columns, cost, axes);
  Object.assign(scatter, { task: current, columns, cost, front, points });
  host.replaceChildren(axes.root, paint(current, columns, points, axes), overlay(host, axes));
  drawFront();
  tellPlans(current, points);
  performance.mark("plans-drawn");
}

function visibleRuns(current) {
  return current.runs.map((run) => shown(run.agent) && run.tracks.includes(track().name));
}

// A cost of each plan relative to dense, and the plans from cheap to costly; worked out once.
const costCache = new WeakMap();
function relativeCost(current, columns, name) {
  if (!costCache.has(columns)) costCache.set(columns, {});
  const cache = costCache.get(columns);
  if (!cache[name]) {
    const relative = Float32Array.from(columns[name], (value) => value / current.dense[name]);
    cache[name] = { relative, order: Uint32Array.from(relative.keys()).sort((a, b) => relative[a] - relative[b]) };
  }
  return cache[name];
}

// Rows that no drawn plan beats in both, from cheap to costly.
function frontOf(current, columns, { relative, order }) {
  const visible = visibleRuns(current), upward = current.higher_is_better ? 1 : -1;
  const found = [];
  let best = -Infinity, last = -1;
  for (const row of order) {
    const value = upward * columns.metric[row];
    if (!visible[columns.run[row]] || !(value > best)) continue;
    if (relative[row] === last) found.pop();
    found.push(row);
    best = value;
    last = relative[row];
  }
  return found;
}

function plansFrame(host, current, columns, front, cost) {
  const y = metricRange(current, columns, front), most = cost.relative[cost.order[cost.order.length - 1]];
  const margin = 0.04 * (y.high - y.low) || 0.01;
  const vertical = { low: y.low - margin, high: y.high + margin, label: `validation ${current.metric}` };
  const horizontal = { low: 0, high: Math.max(1.03, Math.min(2, 1.02 * most)), label: `${COSTS[state.cost]} relative to dense` };
  const axes = frame(host, { x: horizontal, y: vertical, height: host.clientWidth < 520 ? 340 : 460 });
  const inside = (row) => columns.metric[row] >= vertical.low && columns.metric[row] <= vertical.high;
  const best = frontLine(front.filter(inside), columns, cost, axes);
  axes.marked = svg("g", {}, ...budgetLine(current, axes), best, ...denseMark(current, axes));
  return axes;
}

// What the metric's axis shows: from the chosen share of the dense metric to the best plan.
function metricRange({ dense: { metric: dense }, higher_is_better }, { metric }, front) {
  const share = RANGES[state.range][1], best = front.length ? metric[front[front.length - 1]] : dense;
  const worst = () => metric.reduce((found, value) => (higher_is_better ? Math.min(found, value) : Math.max(found, value)), dense);
  if (higher_is_better) return { low: share ? dense * share : worst(), high: Math.max(best, dense) };
  return { low: Math.min(best, dense), high: share ? dense / share : worst() };
}

function budgetLine({ budget }, axes) {
  if (budget === null || state.cost !== task().cost) return [];
  const x = axes.x(budget);
  return [
    svg("line", { class: "cross", x1: x, x2: x, y1: axes.top, y2: axes.bottom }),
    svg("text", { x: x + 5, y: axes.bottom - 6 }, `budget ${budget}`),
  ];
}

function frontLine(front, columns, cost, axes) {
  if (!front.length) return null;
  const corner = (row, i) => {
    const x = axes.x(cost.relative[row]).toFixed(1), y = axes.y(columns.metric[row]).toFixed(1);
    return i ? `H${x}V${y}` : `M${x} ${y}`;
  };
  return svg("path", { class: "front", d: `${front.map(corner).join("")}H${axes.right}` });
}

function denseMark({ dense }, axes) {
  const x = axes.x(1), y = axes.y(dense.metric);
  return [
    svg("path", { d: MARKERS[3](6), transform: `translate(${x} ${y})`, fill: "var(--ink)" }),
    svg("text", { class: "note", x: x + 7, y: y + 20, "text-anchor": "end" }, "dense"),
  ];
}

// What lies above the canvas: the front, the plan under the pointer, and what it keeps.
function overlay(host, axes) {
  const { task: current, columns, points, front } = scatter;
  const ring = svg("circle", { r: 7, fill: "none", stroke: "var(--ink)", "stroke-width": 2, visibility: "hidden" });
  const size = { viewBox: `0 0 ${axes.width} ${axes.height}`, height: axes.height };
  const above = svg("svg", { ...size, "aria-hidden": "true" }, axes.marked, ring);
  const tip = tooltip(host), told = el("p", { class: "hidden", role: "status" });
  let now = null;
  const show = (row) => {
    now = row;
    const [x, y] = [axes.x(scatter.cost.relative[row]), axes.y(columns.metric[row])];
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("visibility", "visible");
    tip.box.dataset.row = row;
    tip.show(x, y, ...planCard(current, columns, row));
  };
  const hide = () => {
    now = null;
    tip.hide();
    ring.setAttribute("visibility", "hidden");
  };
  const follow = (event) => {
    const box = host.getBoundingClientRect();
    const row = nearestPlan(points, event.clientX - box.left, event.clientY - box.top);
    if (row === null) hide();
    else if (row !== now) show(row);
  };
  const open = () => now !== null && openPlan(now);
  const walk = (key) => {
    const last = front.length - 1, at = front.indexOf(now), before = at < 0 ? last : Math.max(0, at - 1);
    return front[{ ArrowLeft: before, ArrowRight: Math.min(last, at + 1), Home: 0, End: last }[key]];
  };
  const keydown = (event) => {
    if (event.key === "Escape") hide();
    if (event.key === "Enter") open();
    const row = walk(event.key);
    if (row === undefined) return;
    event.preventDefault();
    show(row);
    told.textContent = planTold(current, columns, row);
  };
  const keys = "The arrow keys walk along the front of the best; Enter opens a plan's episode.";
  const label = `${plural(points.shown, "plan")} of ${current.name}. ${keys}`;
  const events = { pointermove: follow, pointerleave: hide, blur: hide, click: open, keydown };
  const area = el("div", { class: "top", tabindex: 0, role: "group", "aria-label": label, ...events });
  return el("div", { class: "top" }, above, area, tip.box, told);
}

function planCard(current, columns, row) {
  const run = current.runs[columns.run[row]];
  const cost = (name) => `${whole(columns[name][row])} (${percent(columns[name][row] / current.dense[name])})`;
  const lines = [
    [`validation ${current.metric}`, fixed(columns.metric[row], 4)],
    ...Object.keys(COSTS).map((name) => [COSTS[name], cost(name)]),
    ["return", fixed(columns.plan_return[row], 3)],
  ];
  if (!columns.within_budget[row]) lines.push(["budget", "not met"]);
  return [
    el("div", {}, sample(run.agent), el("strong", {}, run.agent), `, seed ${run.seed}, plan ${whole(evaluationOf(current, columns, row))}`),
    run.refused ? el("div", { class: "bad" }, "run refused by validation") : "",
    rows(...lines),
    keptBars(current, columns, row),
    el("div", { class: "quiet" }, `keeps ${widthsOf(current, columns, row).join(" · ")}`),
  ];
}

function planTold(current, columns, row) {
  const run = current.runs[columns.run[row]];
  const cost = `${percent(columns[state.cost][row] / current.dense[state.cost])} of the ${COSTS[state.cost]}`;
  const kept = widthsOf(current, columns, row).join(", ");
  return `${run.agent}, seed ${run.seed}${run.refused ? REFUSED : ""}: ${current.metric} ${fixed(columns.metric[row], 4)} at ${cost}; keeps ${kept}`;
}

// A column for each group: how much of it is left.
function keptBars(current, columns, row) {
  const widths = widthsOf(current, columns, row), each = Math.max(2, Math.min(14, Math.floor(240 / widths.length))), height = 34;
  const bars = svg("svg", { class: "meter", width: each * widths.length, height, "aria-hidden": "true" });
  widths.forEach((width, i) => {
    const part = (height * width) / current.sizes[i], place = { x: i * each, width: each - (each > 3 ? 2 : 0.5) };
    bars.append(svg("rect", { class: "all", ...place, height }));
    bars.append(svg("rect", { class: "part", ...place, y: height - part, height: part }));
  });
  return bars;
}

// Hundreds of rows: only where they are looked at.
function drawFront() {
  const { task: current, columns, front } = scatter;
  if (!current || !byId("front").open) return;
  const head = [COSTS[state.cost], "of dense", `validation ${current.metric}`, "return", "agent", "seed", "plan", "channels kept"];
  const line = (row) => {
    const run = current.runs[columns.run[row]], value = columns[state.cost][row];
    const relative = percent(value / current.dense[state.cost], 1);
    const measured = [fixed(columns.metric[row], 4), fixed(columns.plan_return[row], 3)];
    const agent = `${run.agent}${run.refused ? REFUSED : ""}`;
    return [whole(value), relative, ...measured, agent, run.seed, evaluationOf(current, columns, row), widthsOf(current, columns, row).join(" · ")];
  };
  const cells = (row) => line(row).map((cell) => el("td", {}, String(cell)));
  byId("front-table").replaceChildren(headed(head), el("tbody", {}, ...front.map((row) => el("tr", {}, ...cells(row)))));
}

function tellPlans(current, points) {
  const left = points.total - points.shown, are = left === 1 ? "is" : "are";
  const thinned = current.count < current.evaluated;
  const some = `; ${whole(current.count)} of ${whole(current.evaluated)} plans shown: whole episodes, and all of every agent's front`;
  const dots = `${plural(points.total, "plan")} of ${current.name}, each a dot${thinned ? some : ""}`;
  const line = "the line is the front: no plan shown is better in both";
  const beyond = left ? ` ${plural(left, "plan")} beyond the axes ${are} left out.` : "";
  const keys = "Point at a dot, or walk along the front with the arrow keys, to see the plan.";
  byId("plans-lead").textContent = `${dots}; ${line}.${beyond} ${keys}`;
}
