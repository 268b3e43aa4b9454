// Elements, numbers as text, and the state that all parts of the page share.

const SVG = "http://www.w3.org/2000/svg";

// Text goes in as text nodes alone, never as markup: names and tracebacks come from files.
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

const MISSING = "–";
const REFUSED = ", refused by validation"; // after the name of a run
const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
const fixed = (value, digits) => {
  if (!known(value)) return MISSING;
  const text = value.toFixed(digits);
  return /^-0\.?0*$/.test(text) ? text.slice(1) : text.replace("-", "−");
};
const signed = (value, digits) => (known(value) ? (value > 0 ? "+" : "") + fixed(value, digits) : MISSING);
const percent = (value, digits = 0) => (known(value) ? `${fixed(100 * value, digits)}\u00a0%` : MISSING);
const signedPercent = (value, digits = 1) => (known(value) ? `${signed(100 * value, digits)}\u00a0%` : MISSING);
const whole = (value) => (known(value) ? value.toLocaleString("en-US") : MISSING);
const plural = (count, what) => `${whole(count)} ${what}${count === 1 ? "" : "s"}`;
const and = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`);

function duration(seconds) {
  if (!known(seconds)) return MISSING;
  if (seconds < 1) return `${(1000 * seconds).toPrecision(2)} ms`;
  if (seconds < 100) return `${seconds.toPrecision(3)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const SUMMARY = JSON.parse(byId("summary").textContent);

// suite and track are numbers; scope is "" for all tasks or a task's name; task is the number of one task.
const state = {
  suite: 0,
  track: 0,
  scope: "",
  task: 0,
  x: "evaluations",
  y: "score",
  scale: "log", // of the anytime curves' x axis: most is learnt early
  cost: "macs",
  range: "useful",
  zoom: "all", // of the intervals' picture
  hidden: new Set(), // agents that are not drawn
};
const views = [];

// Draw now, and again whenever one of the keys of the state is set.
function view(keys, draw) {
  views.push({ keys, draw });
}

function set(changes) {
  Object.assign(state, changes);
  for (const { keys, draw } of views) if (keys.some((key) => key in changes)) draw();
}

const suite = () => SUMMARY.suites[state.suite];
const track = () => suite().tracks[state.track];
const task = () => suite().tasks[state.task];
const shown = (name) => !state.hidden.has(name);

// A labelled <select> for one key of the state. It stays where it is, so that the keyboard's focus does too.
function selector(key, label, options, { numeric = false, after = () => ({}) } = {}) {
  const select = el("select", {
    "data-key": key,
    change: () => {
      const value = numeric ? Number(select.value) : select.value;
      set({ [key]: value, ...after(value) });
    },
  });
  const labelled = el("label", { class: "choice" }, label, select);
  let last = "";
  view(["suite", "track", "scope", key], () => {
    const wanted = options();
    if (JSON.stringify(wanted) !== last) {
      select.replaceChildren(...wanted.map(([value, text]) => el("option", { value: String(value) }, text)));
      last = JSON.stringify(wanted);
    }
    select.value = String(wanted.some(([value]) => value === state[key]) ? state[key] : wanted[0]?.[0]);
    labelled.hidden = wanted.length < 2 && (key === "suite" || key === "track");
    select.disabled = wanted.length < 2;
  });
  return labelled;
}

// A <td> with a bar before its text: how much of a whole is left, or a number around zero.
function share(part, all, text, width = 90) {
  const bar = (kind, length) => svg("rect", { class: kind, width: length, height: 10, rx: 2 });
  const picture = { class: "meter", width, height: 10, "aria-hidden": "true" };
  const bars = svg("svg", picture, bar("all", width), bar("part", (width * part) / all));
  return el("td", {}, bars, el("span", {}, text));
}

function around(value, most, text, width = 60) {
  if (!known(value)) return el("td", {}, text);
  const half = width / 2, length = most > 0 ? (half * Math.min(Math.abs(value), most)) / most : 0;
  const seen = length > 0 ? Math.max(length, 0.75) : 0; // a bar that is there must be seen
  const bar = { class: value < 0 ? "minus" : "plus", x: value < 0 ? half - seen : half, width: seen, y: 1, height: 8 };
  const zero = svg("line", { class: "zero", x1: half, x2: half, y2: 10 });
  const picture = { class: "meter", width, height: 10, "aria-hidden": "true" };
  const bars = svg("svg", picture, svg("rect", bar), zero);
  return el("td", {}, bars, el("span", {}, text));
}

// The head of a table, a column for each text.
function headed(texts) {
  return el("thead", {}, el("tr", {}, ...texts.map((text) => el("th", { scope: "col" }, text))));
}
