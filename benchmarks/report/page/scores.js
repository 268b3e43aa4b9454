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
const PICTURE = 150, PICTURE_MARGIN = 12; // pixels

const scope = () => track()?.scopes[state.scope];
const scopeName = () => (state.scope === "" ? `${plural(scope().tasks, "task")} together` : state.scope);
const scopeOptions = () => Object.keys(track()?.scopes ?? {}).map((name) => [name, name === "" ? "all tasks" : name]);
const interval = ({ low, high }, digits = 3) => (known(low) ? `[${fixed(low, digits)}, ${fixed(high, digits)}]` : MISSING);
// Where the interval of an agent lies: all runs of one that draws nothing are alike, and it has a place without a width.
const endsOf = ({ value, low, high, alike }) => (alike ? [value, value] : [low, high]);
const capital = (text) => text[0].toUpperCase() + text.slice(1);

function drawScores() {
  const here = scope();
  byId("improvement").hidden = !here || here.lines.length < 2;
  byId("scores-lead").textContent = here ? scoresTold(here) : "No run is done: there is nothing to score.";
  byId("scores-notes").replaceChildren(...(here ? scoreNotes(here) : []).map((text) => el("p", { class: "quiet" }, text)));
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

// What columns mean that no heading has room for.
function scoreNotes(here) {
  const notes = [];
  if (here.number === "score") {
    const chosen = "agents choose plans by the validation split, so its score flatters whoever searches hardest";
    const worth = "this is what the plans are worth on examples that nobody chose by, 0 being the best uniform setting's plan there";
    const few = here.lines.some(({ test }) => test.n) ? "" : " No validated run here knows it.";
    notes.push(`On test: ${chosen}; ${worth}.${few}`);
  }
  if (here.lines.some((line) => line.hypervolume)) {
    notes.push("Hypervolume: the area that a run's plans dominate, accuracy against cost; 1 is dense accuracy at no cost.");
  }
  const one = suite().tasks.find(({ name }) => name === state.scope)?.example_worth;
  if (known(one)) notes.push(`One validation example more is worth about ${fixed(one, 4)} of score on ${state.scope}.`);
  if (here.lines.some(({ main }) => main.alike)) {
    notes.push("“Alike” after n: all runs of a task are the same to the last bit, so they count as one, and no interval is given.");
  }
  return notes;
}

// The axis of the pictures: from the data, of all agents or of the better half.
function pictureScale(here) {
  const told = here.lines.filter(({ main }) => known(main.value));
  const chosen = state.zoom === "best" ? told.slice(0, Math.max(2, Math.ceil(told.length / 2))) : told;
  const values = chosen.flatMap(({ main }) => [main.value, ...endsOf(main)]).filter(known);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1], margin = 0.04 * (high - low) || 0.05;
  const ends = { low: low - margin, high: high + margin };
  return Object.assign(scale(ends.low, ends.high, PICTURE_MARGIN, PICTURE - PICTURE_MARGIN), ends);
}

function scoreTable(here) {
  const columns = scoreColumns(here, pictureScale(here)).filter(([, , , wanted = true]) => wanted);
  const head = ([text, title]) => el("th", { scope: "col", title, "aria-label": typeof text === "string" ? null : title }, text);
  const line = (each) => el("tr", { "data-agent": each.agent }, ...columns.map(([, , cell]) => cell(each)));
  return [el("thead", {}, el("tr", {}, ...columns.map(head))), el("tbody", {}, ...here.lines.map(line))];
}

// Of each column: its head, what that means, its cell of a line, and whether there is such a column.
function scoreColumns(here, at) {
  const regret = here.lines.some((line) => line.regret), area = here.lines.some((line) => line.hypervolume);
  const won = { class: "good", title: "its interval lies above all others" };
  const star = (agent) => (agent === here.winner ? el("span", won, " ★") : null);
  const alike = ({ alike: same }) => (same ? ", alike" : "");
  const count = ({ main, planned }) => `${main.n < planned ? `${main.n} of ${planned}` : whole(main.n)}${alike(main)}`;
  const withEnds = (each, digits = 3) => {
    if (!each || !known(each.value)) return [MISSING];
    return [fixed(each.value, digits), el("span", { class: "quiet" }, known(each.low) ? ` ${interval(each, digits)}` : "")];
  };
  // Where not all runs know it, it says how many do.
  const some = ({ test, main }) => (test.n && test.n < main.n ? el("span", { class: "bad" }, ` n=${test.n}`) : null);
  const scored = here.number === "score", single = state.scope !== "" || here.tasks === 1;
  return [
    ["agent", null, ({ agent }) => el("th", { scope: "row" }, sample(agent), agent, star(agent))],
    [here.number, "interquartile mean", ({ main }) => el("td", {}, fixed(main.value, 3))],
    ["95\u00a0% interval", null, ({ main }) => el("td", {}, interval(main))],
    [levelsPicture(at), "the interval as a picture", (line) => el("td", {}, intervalPicture(line, at))],
    ["n", "runs", (line) => el("td", { class: line.main.n < line.planned ? "bad" : null }, count(line))],
    ["on test", "the same on the test split", (line) => el("td", {}, ...withEnds(line.test), some(line)), scored],
    ["best", "return of the best run", ({ highest }) => el("td", {}, fixed(highest, 3)), single],
    ["regret", SCALES.regret, ({ regret: each }) => el("td", {}, fixed(each?.value, 4)), regret],
    ["optimum found", "share of runs that found the best plan there is", ({ optimal }) => el("td", {}, percent(optimal)), regret],
    ["hypervolume", "see below the table", ({ hypervolume: each }) => el("td", {}, ...withEnds(each)), area],
  ];
}

function levelsPicture(at) {
  const label = (level, text) => {
    const attributes = { x: at(level), y: 12, "text-anchor": "middle", "font-size": 11, fill: "currentColor" };
    return svg("text", attributes, text);
  };
  const levels = pictureTicks(at), text = tickText(levels);
  return svg("svg", { width: PICTURE, height: 14, "aria-hidden": "true" }, ...levels.map((level) => label(level, text(level))));
}

function intervalPicture({ agent, main }, at) {
  const look = style(agent), picture = svg("svg", { class: "interval", width: PICTURE, height: 18, "aria-hidden": "true" });
  for (const level of pictureTicks(at)) picture.append(svg("line", { x1: at(level), x2: at(level), y2: 18, stroke: "var(--line)" }));
  if (!known(main.value)) return picture;
  if (main.value < at.low) {
    picture.append(svg("path", { d: "M1 9L8 4V14Z", fill: look.colour }));
    return picture;
  }
  // A bar with a stroke where the mean is: a marker would cover narrow intervals.
  if (known(main.low)) {
    const bar = { x: at(main.low), width: Math.max(1, at(main.high) - at(main.low)), y: 4, height: 10 };
    picture.append(svg("rect", { ...bar, fill: look.colour, "fill-opacity": 0.4 }));
  }
  picture.append(svg("line", { x1: at(main.value), x2: at(main.value), y1: 1, y2: 17, stroke: look.colour, "stroke-width": 2 }));
  return picture;
}

const pictureTicks = (at) => ticks(at.low, at.high, 4);

function verdict(here) {
  const lines = here.lines.filter((line) => known(line.main.value));
  if (!lines.length) return "No run has a number here.";
  if (here.winner) return `★ ${here.winner} stands out: its interval lies above all others.`;
  if (lines.length < 2) return "One agent alone: nothing to compare.";
  const missing = here.lines.filter((line) => line.main.n < line.planned).map((line) => line.agent);
  if (missing.length) return `No winner is marked: runs of ${and(missing)} are missing.`;
  if (lines.some((line) => !known(endsOf(line.main)[0]))) return "No winner is marked: an interval needs two runs of every task.";
  const [first, ...others] = lines;
  const near = others.filter((line) => endsOf(line.main)[1] >= endsOf(first.main)[0]).map((line) => line.agent);
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
    el("thead", {}, el("tr", {}, el("td", {}), ...names.map((name) => el("th", { scope: "col" }, el("span", {}, name))))),
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
