// Lines with bands: performance profiles and anytime curves.

const MARKS_A_LINE = 6;

// `figure` has label, x (low, label, and whether log) and y (low, high, label), points, and lines: {agent, value, low, high, n}, arrays with null for gaps.
function lineChart(host, figure) {
  host.replaceChildren();
  let lines = figure.lines.filter((line) => shown(line.agent) && line.value.some(known));
  if (!lines.length) {
    host.append(el("p", { class: "empty" }, figure.empty ?? "No run to draw."));
    return;
  }
  figure = { ...figure, ...cut(figure, lines) };
  lines = figure.lines;
  const at = frame(host, { x: figure.x, y: figure.y, height: host.clientWidth < 520 ? 300 : 380 });
  const inside = { x: at.left, y: at.top, width: at.right - at.left, height: at.bottom - at.top };
  at.root.prepend(svg("defs", {}, svg("clipPath", { id: `${host.id}-clip` }, svg("rect", inside))));
  at.drawn.setAttribute("clip-path", `url(#${host.id}-clip)`);
  for (const [label, value] of figure.levels ?? []) {
    if (value < figure.y.low || value > figure.y.high) continue;
    const across = { x1: at.left, x2: at.right, y1: at.y(value), y2: at.y(value) };
    at.drawn.append(svg("line", { class: "axis", ...across, "stroke-dasharray": "1 4" }));
    at.axes.append(svg("text", { x: at.right, y: at.y(value) - 5, "text-anchor": "end" }, label));
  }
  lines.forEach((line, i) => at.drawn.append(drawnLine(line, figure.points, at, i)));
  const crossing = svg("line", { class: "cross", y1: at.top, y2: at.bottom, visibility: "hidden" });
  at.root.append(crossing);
  const tip = tooltip(host), told = el("p", { class: "hidden", role: "status" });
  host.append(at.root, tip.box, told);
  reading(host, figure, lines, at, crossing, tip, told);
}

// What lies between the ends of the x axis: up to the last known value, and beyond 0 where the axis is logarithmic.
function cut({ points, x }, lines) {
  const last = Math.max(...lines.map((line) => line.value.findLastIndex(known)));
  const positive = points.findIndex((point) => point > 0), log = Boolean(x.log) && positive >= 0 && positive <= last;
  const first = log ? positive : 0;
  const part = (values) => values.slice(first, last + 1);
  const inside = lines.map((line) => ({ ...line, value: part(line.value), low: part(line.low), high: part(line.high) }));
  return { points: part(points), lines: inside, x: { ...x, log, low: log ? points[first] : x.low, high: points[last] } };
}

function drawnLine(line, points, at, i) {
  const look = style(line.agent);
  const group = svg("g", { "data-line": line.agent });
  const band = bandPath(line, points, at);
  if (band) group.append(svg("path", { d: band, fill: look.colour, "fill-opacity": 0.14 }));
  const stroke = { stroke: look.colour, "stroke-width": 2, "stroke-dasharray": look.dash, "stroke-linejoin": "round" };
  group.append(svg("path", { d: linePath(line.value, points, at), fill: "none", ...stroke }));
  const every = Math.max(1, Math.floor(points.length / MARKS_A_LINE));
  for (let k = Math.floor((every * (i + 1)) / 8) % every; k < points.length; k += every) {
    if (!known(line.value[k])) continue;
    const place = `translate(${at.x(points[k])} ${at.y(line.value[k])})`;
    group.append(svg("path", { d: look.marker(4), transform: place, fill: look.colour }));
  }
  return group;
}

function linePath(values, points, at) {
  let path = "", open = false;
  values.forEach((value, k) => {
    if (known(value)) path += `${open ? "L" : "M"}${at.x(points[k]).toFixed(1)} ${at.y(value).toFixed(1)}`;
    open = known(value);
  });
  return path;
}

function bandPath(line, points, at) {
  const inside = points.map((_, k) => k).filter((k) => known(line.low[k]) && known(line.high[k]));
  if (inside.length < 2) return "";
  const corner = (values) => (k) => `${at.x(points[k]).toFixed(1)} ${at.y(values[k]).toFixed(1)}`;
  return `M${inside.map(corner(line.high)).join("L")}L${inside.reverse().map(corner(line.low)).join("L")}Z`;
}

// A cross that tells every line's value: under the pointer, and by the arrow keys.
function reading(host, figure, lines, at, crossing, tip, told) {
  let index = null;
  const show = (k) => {
    index = k;
    const x = figure.points[k];
    crossing.setAttribute("x1", at.x(x));
    crossing.setAttribute("x2", at.x(x));
    crossing.setAttribute("visibility", "visible");
    const here = lines.filter((line) => known(line.value[k])).sort((a, b) => figure.best * (b.value[k] - a.value[k]));
    const { show: text } = figure.y;
    const ends = (line) => (known(line.low[k]) ? ` [${text(line.low[k])}, ${text(line.high[k])}]` : "");
    const read = (line) => `${text(line.value[k])}${ends(line)}`;
    const title = `${figure.x.label}: ${figure.x.show(x)}`;
    const listed = here.map((line) => [el("span", {}, sample(line.agent), line.agent), read(line)]);
    tip.show(at.x(x), (at.top + at.bottom) / 2, el("strong", {}, title), rows(...listed));
    told.textContent = `${title}. ${here.map((line) => `${line.agent} ${read(line)}`).join(", ")}`;
  };
  const hide = () => {
    index = null;
    tip.hide();
    crossing.setAttribute("visibility", "hidden");
  };
  const distance = (k, x) => Math.abs(at.x(figure.points[k]) - x);
  const nearest = (x) => figure.points.reduce((best, _, k) => (distance(k, x) < distance(best, x) ? k : best), 0);
  const last = figure.points.length - 1;
  const moves = {
    ArrowLeft: (k) => Math.max(0, (k ?? last + 1) - 1),
    ArrowRight: (k) => Math.min(last, (k ?? -1) + 1),
    Home: () => 0,
    End: () => last,
  };
  const area = el("div", {
    class: "top",
    tabindex: 0,
    role: "group",
    "aria-label": `${figure.label}. The arrow keys read the values.`,
    pointermove: (event) => show(nearest(event.clientX - host.getBoundingClientRect().left)),
    pointerleave: hide,
    blur: hide,
    keydown: (event) => {
      if (event.key === "Escape") hide();
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key](index));
    },
  });
  host.append(area);
}

function dimOthers(host) {
  return (name) => {
    for (const group of host.querySelectorAll("[data-line]")) {
      group.classList.toggle("dim", name !== null && group.dataset.line !== name);
    }
  };
}
