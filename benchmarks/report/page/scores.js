// The score table, who beats whom, performance profiles and anytime curves: what all runs of a track say about its agents.

const TRACKS = {
  search: "judged by the best plan that the run evaluated",
  policy: "judged by what the trained policy does, without exploring, in one episode",
  transfer: "judged by what the trained policy does on networks that it never learnt on",
};
const SCALES = {
  score: "0 is the best uniform setting, 1 the best plan known",
  return: "0 is the dense network, 1 the best uniform setting",
  regret: "what the best plan there is returns more than the best plan found; known exactly, since a table holds every plan",
};
const LEAST_SPREAD = 0.3; // of scores and returns: closer lines need no closer view
const PICTURE = 180; // pixels

const scope = () => track()?.scopes[state.scope];
const scopeName = () => (state.scope === "" ? `${plural(scope().tasks, "task")} together` : state.scope);
const scopeOptions = () => Object.keys(track()?.scopes ?? {}).map((name) => [name, name === "" ? "all tasks" : name]);
const interval = ({ low, high }, digits = 3) => (known(low) ? `[${fixed(low, digits)}, ${fixed(high, digits)}]` : MISSING);
const capital = (text) => text[0].toUpperCase() + text.slice(1);

function drawScores() {
  const here = scope();
  byId("improvement").hidden = !here || here.lines.length < 2;
  byId("scores-lead").textContent = here ? scoresTold(here) : "No run is done: there is nothing to score.";
  byId("scores-table").replaceChildren(...(here ? scoreTable(here) : []));
  byId("scores-verdict").textContent = here ? verdict(here) : "";
  byId("improvement-table").replaceChildren(...(here ? improvementTable(here) : []));
}

function scoresTold(here) {
  const judged = `Track ${track().name}: each run is ${TRACKS[track().name]}.`;
  const over = `${scopeName()} and all seeds, with its 95\u00a0% interval (stratified bootstrap)`;
  const out = here.left_out.length ? ` Left out, for want of a best known plan: ${and(here.left_out)}.` : "";
  const mean = `Interquartile mean of the ${here.number} over ${over}.`;
  return `${judged} ${mean} ${capital(here.number)}: ${SCALES[here.number]}.${out}`;
}

function scoreTable(here) {
  const values = here.lines.flatMap(({ main }) => [main.value, main.low, main.high]).filter(known);
  const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)], at = scale(low, high, 8, PICTURE - 8);
  const columns = scoreColumns(here, at).filter(([, , , wanted = true]) => wanted);
  const head = ([text, title]) => el("th", { scope: "col", title, "aria-label": typeof text === "string" ? null : title }, text);
  const line = (each) => el("tr", { "data-agent": each.agent }, ...columns.map(([, , cell]) => cell(each)));
  return [el("thead", {}, el("tr", {}, ...columns.map(head))), el("tbody", {}, ...here.lines.map(line))];
}

// Of each column: its head, what that means, its cell of a line, and whether there is such a column.
function scoreColumns(here, at) {
  const regret = here.lines.some((line) => line.regret), area = here.lines.some((line) => line.hypervolume);
  const won = { class: "good", title: "its interval lies above all others" };
  const star = (agent) => (agent === here.winner ? el("span", won, " ★") : null);
  const count = ({ main, planned }) => (main.n < planned ? `${main.n} of ${planned}` : whole(main.n));
  const meant = "area that a run's plans dominate, accuracy against cost; 1: dense accuracy at no cost";
  return [
    ["agent", null, ({ agent }) => el("th", { scope: "row" }, sample(agent), agent, star(agent))],
    [here.number, "interquartile mean", ({ main }) => el("td", {}, fixed(main.value, 3))],
    ["95\u00a0% interval", null, ({ main }) => el("td", {}, interval(main))],
    [levelsPicture(at), "the interval as a picture", (line) => el("td", {}, intervalPicture(line, at))],
    ["n", "runs", (line) => el("td", { class: line.main.n < line.planned ? "bad" : null }, count(line))],
    ["best", "return of the best run", ({ highest }) => el("td", {}, fixed(highest, 3))],
    ["regret", SCALES.regret, ({ regret: each }) => el("td", {}, fixed(each?.value, 4)), regret],
    ["optimum found", "share of runs that found the best plan there is", ({ optimal }) => el("td", {}, percent(optimal)), regret],
    ["hypervolume", meant, ({ hypervolume: each }) => el("td", { title: each && interval(each) }, fixed(each?.value, 3)), area],
  ];
}

function levelsPicture(at) {
  const label = (level) => {
    const attributes = { x: at(level), y: 12, "text-anchor": "middle", "font-size": 11, fill: "currentColor" };
    return svg("text", attributes, String(level));
  };
  return svg("svg", { width: PICTURE, height: 14, "aria-hidden": "true" }, label(0), label(1));
}

function intervalPicture({ agent, main }, at) {
  const look = style(agent), picture = svg("svg", { width: PICTURE, height: 18, "aria-hidden": "true" });
  for (const level of [0, 1]) picture.append(svg("line", { x1: at(level), x2: at(level), y2: 18, stroke: "var(--line)" }));
  if (known(main.low)) {
    const ends = { x1: at(main.low), x2: at(main.high), y1: 9, y2: 9 };
    picture.append(svg("line", { ...ends, stroke: look.colour, "stroke-width": 3, "stroke-linecap": "round" }));
  }
  if (known(main.value)) {
    const place = { d: look.marker(5), transform: `translate(${at(main.value)} 9)` };
    picture.append(svg("path", { ...place, fill: look.colour, stroke: "var(--paper)", "stroke-width": 1 }));
  }
  return picture;
}

function verdict(here) {
  const lines = here.lines.filter((line) => known(line.main.value));
  if (!lines.length) return "No run has a number here.";
  if (here.winner) return `★ ${here.winner} stands out: its interval lies above all others.`;
  if (lines.length < 2) return "One agent alone: nothing to compare.";
  const missing = here.lines.filter((line) => line.main.n < line.planned).map((line) => line.agent);
  if (missing.length) return `No winner is marked: runs of ${and(missing)} are missing.`;
  if (lines.some((line) => !known(line.main.low))) return "No winner is marked: an interval needs two runs of every task.";
  const [first, ...others] = lines;
  const near = others.filter((line) => line.main.high >= first.main.low).map((line) => line.agent);
  if (!near.length) return "No winner is marked: intervals of fewer than five runs of a task are too narrow for it.";
  const that = near.length === 1 ? "that" : "those";
  return `No agent stands out: the interval of ${first.agent} overlaps with ${that} of ${and(near)}.`;
}

function improvementTable(here) {
  const names = here.lines.map((line) => line.agent), found = new Map();
  const turned = (value) => (known(value) ? 1 - value : null);
  for (const { first, second, value, low, high } of here.improvement) {
    found.set(`${first}\n${second}`, { value, low, high });
    found.set(`${second}\n${first}`, { value: turned(value), low: turned(high), high: turned(low) });
  }
  const line = (name) => {
    const cells = names.map((other) => improvementCell(name, other, found.get(`${name}\n${other}`)));
    return el("tr", {}, el("th", { scope: "row" }, sample(name), name), ...cells);
  };
  return [
    el("thead", {}, el("tr", {}, el("td", {}), ...names.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...names.map(line)),
  ];
}

function improvementCell(first, second, chance) {
  if (first === second) return el("td", { class: "quiet" }, "·");
  const { value, low, high } = chance, title = `${first} beats ${second}: ${interval(chance, 2)}`;
  if (!known(low) || (low <= 0.5 && high >= 0.5)) return el("td", { title }, fixed(value, 2));
  return el("td", { title, class: low > 0.5 ? "good" : "bad" }, el("b", {}, fixed(value, 2)));
}

function drawProfiles() {
  const here = scope(), host = byId("profiles-chart");
  if (!here) return lineChart(host, { lines: [], empty: "No run is done." });
  const shares = `The share of runs whose ${here.number} lies above each threshold, over ${scopeName()} and all seeds`;
  byId("profiles-lead").textContent = `${shares}; a line further up and to the right is better. Bands: 95\u00a0%.`;
  const points = here.profile.points, show = (value) => percent(value);
  return lineChart(host, {
    label: `Performance profiles over ${scopeName()}`, points, lines: here.profile.lines, best: 1,
    x: { low: points[0], label: here.number, show: (value) => fixed(value, 3) },
    y: { low: 0, high: 1, label: "share of runs above it", show, text: show },
  });
}

const anytimeNumber = () => (state.y === "regret" && scope()?.exact ? "regret" : scope()?.number);
const inSeconds = () => Boolean(scope()?.anytime[`seconds:${scope().number}`]);
const anytimeAxis = () => (inSeconds() ? state.x : "evaluations");

function drawAnytime() {
  const here = scope(), host = byId("anytime-chart"), number = anytimeNumber(), axis = anytimeAxis();
  const curves = here?.anytime[`${axis}:${number}`];
  byId("anytime-lead").textContent = curves ? anytimeTold(number) : "";
  if (!curves) {
    const none = here ? `The track ${track().name} judges one episode: there is no search to follow.` : "No run is done.";
    return lineChart(host, { lines: [], empty: none });
  }
  const { low, high } = valueRange(curves.lines.filter((line) => shown(line.agent)), number);
  const levels = { score: [["best known", 1], ["best uniform", 0]], return: [["best uniform", 1]], regret: [] };
  const seconds = axis === "seconds", regret = number === "regret";
  return lineChart(host, {
    label: `Anytime curves over ${scopeName()}`, points: curves.points, lines: curves.lines,
    best: regret ? -1 : 1, levels: levels[number],
    x: { low: 0, log: state.scale === "log", label: seconds ? "simulated seconds" : "evaluated plans", show: seconds ? duration : whole },
    y: { low, high, label: regret ? "regret" : `${number} of the best plan so far`, show: (value) => fixed(value, 3) },
  });
}

function anytimeTold(number) {
  const what = number === "regret" ? "Regret" : `${capital(number)} of the best plan so far`;
  const meant = number === "regret" ? ` Regret: ${SCALES.regret}.` : "";
  const mean = `${what}, over ${scopeName()}: interquartile mean over all runs, with its 95\u00a0% band.`;
  return `${mean}${meant} A line ends where the first of its runs does.`;
}

// Where the lines are; early disasters are left to the edge.
function valueRange(lines, number) {
  const all = lines.flatMap((line) => line.value).filter(known);
  const last = lines.map((line) => line.value.findLast(known)).filter(known);
  if (!last.length) return { low: 0, high: 1 };
  const [worst, best] = [Math.min(...last), Math.max(...last)], spread = Math.max(best - worst, LEAST_SPREAD);
  if (number === "regret") return { low: 0, high: Math.min(Math.max(...all), worst + spread) };
  return { low: Math.max(Math.min(...all), worst - spread), high: best + 0.1 * spread };
}
