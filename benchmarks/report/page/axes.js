// Scales, ticks and the frame that figures are drawn in.

function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

// 1, 2, 5, 10, ...; where these are too many, powers of ten alone.
function logTicks(low, high, count) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    found.push(...[1, 2, 5].map((factor) => Number(`${factor}e${power}`)).filter((value) => value >= low && value <= high));
  }
  const few = found.length > count ? found.filter((value) => Number.isInteger(Math.log10(value))) : found;
  return few.length ? few : [low];
}

const plainText = (value) => (value >= 1 ? whole(value) : String(Number(value.toPrecision(3))));

function tickText(values) {
  const step = values.length > 1 ? values[1] - values[0] : Math.abs(values[0]) || 1;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return (value) => (Math.abs(value) >= 10000 ? whole(Math.round(value)) : fixed(value, Math.min(digits, 6)));
}

function scale(low, high, from, to, log = false) {
  const of = log ? Math.log10 : (value) => value;
  const start = of(low), factor = (to - from) / (of(high) - start || 1);
  return (value) => from + (of(value) - start) * factor;
}

// The axes of a figure in `host`; gives the scales and an <svg> group for what is drawn on them.
function frame(host, { x, y, height }) {
  const width = Math.max(host.clientWidth, 240);
  const narrow = width < 520;
  const yTicks = ticks(y.low, y.high, height / 55), yText = y.text ?? tickText(yTicks);
  const longest = Math.max(...yTicks.map((value) => yText(value).length));
  const box = { left: 14 + 7 * longest, right: width - 12, top: 26, bottom: height - 44, width, height };
  const many = (box.right - box.left) / (narrow ? 70 : 90), xTicks = (x.log ? logTicks : ticks)(x.low, x.high, many);
  const xText = x.text ?? (x.log ? plainText : tickText(xTicks));
  const atX = scale(x.low, x.high, box.left, box.right, x.log), atY = scale(y.low, y.high, box.bottom, box.top);
  const axes = svg("g", { "aria-hidden": "true" });
  for (const value of yTicks) {
    axes.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: atY(value), y2: atY(value) }));
    axes.append(svg("text", { x: box.left - 7, y: atY(value) + 4, "text-anchor": "end" }, yText(value)));
  }
  for (const value of xTicks) {
    axes.append(svg("line", { class: "axis", x1: atX(value), x2: atX(value), y1: box.bottom, y2: box.bottom + 5 }));
    axes.append(svg("text", { x: atX(value), y: box.bottom + 18, "text-anchor": "middle" }, xText(value)));
  }
  axes.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  axes.append(svg("text", { class: "note", x: box.right, y: box.bottom + 36, "text-anchor": "end" }, x.label));
  axes.append(svg("text", { class: "note", x: 0, y: 12 }, y.label));
  const drawn = svg("g");
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" }, axes, drawn);
  return { root, axes, drawn, x: atX, y: atY, ...box };
}

// The box that follows the pointer.
function tooltip(host) {
  const box = el("div", { class: "tip", hidden: true });
  return {
    box,
    hide: () => (box.hidden = true),
    show: (left, top, ...content) => {
      box.replaceChildren(...content);
      box.hidden = false;
      const room = host.clientWidth - box.offsetWidth;
      box.style.left = `${Math.max(0, Math.min(room, left > host.clientWidth / 2 ? left - box.offsetWidth - 14 : left + 14))}px`;
      box.style.top = `${Math.max(0, top - box.offsetHeight / 2)}px`;
    },
  };
}

function rows(...pairs) {
  return el("table", {}, ...pairs.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell)))));
}

// Draw again when there is another width to fill.
function whenResized(host, draw) {
  let last = host.clientWidth;
  new ResizeObserver(() => {
    if (host.clientWidth === last) return;
    last = host.clientWidth;
    draw();
  }).observe(host);
}
