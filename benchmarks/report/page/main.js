// Puts the page together and draws it.

const THEMES = ["auto", "light", "dark"];
const taskNumbers = () => suite().tasks.map((each, i) => [i, each.name]);
const numbered = (list) => list.map(({ name }, i) => [i, name]);

// What another suite or track leaves of the state: choices that exist there.
function valid({ suite: s = state.suite, track: t = state.track }) {
  const { tracks, tasks } = SUMMARY.suites[s], chosen = tracks[t] ? t : 0;
  const scopes = Object.keys(tracks[chosen]?.scopes ?? {});
  const judged = tasks.map(({ runs }) => runs.some((run) => run.tracks.includes(tracks[chosen]?.name)));
  return {
    track: chosen,
    scope: scopes.includes(state.scope) ? state.scope : scopes[0] ?? "",
    task: judged[state.task] && s === state.suite ? state.task : Math.max(0, judged.indexOf(true)),
  };
}

function controls() {
  const theme = el("select", { id: "theme", change: () => changeTheme(theme.value) });
  theme.append(...THEMES.map((name) => el("option", { value: name }, name)));
  const suites = { numeric: true, after: (s) => valid({ suite: s, track: 0 }) };
  const tracks = { numeric: true, after: (t) => valid({ track: t }) };
  byId("global-choices").append(
    selector("suite", "Suite", () => numbered(SUMMARY.suites), suites),
    selector("track", "Track", () => numbered(suite().tracks), tracks),
    el("label", { class: "choice" }, "Theme", theme),
  );
  for (const section of ["scores", "profiles", "anytime"]) {
    byId(`${section}-choices`).append(selector("scope", "Task", scopeOptions));
  }
  byId("scores-choices").append(selector("zoom", "Picture", () => [["all", "all agents"], ["best", "the better half"]]));
  const against = [["evaluations", "evaluated plans"], ["seconds", "simulated seconds"]];
  byId("anytime-choices").append(
    selector("x", "Against", () => (inSeconds() ? against : against.slice(0, 1))),
    selector("scale", "Scale", () => [["log", "logarithmic"], ["linear", "linear"]]),
    selector("y", "Show", () => [["score", scope()?.number ?? "score"], ...(scope()?.exact ? [["regret", "exact regret"]] : [])]),
  );
  byId("plans-choices").append(
    selector("task", "Task", taskNumbers, { numeric: true }),
    selector("cost", "Cost", () => Object.entries(COSTS)),
    selector("range", "Show", () => Object.entries(RANGES).map(([name, [text]]) => [name, text])),
  );
  for (const section of ["profiles", "anytime", "plans"]) {
    agentBoxes(byId(`${section}-agents`), dimOthers(byId(`${section}-chart`)));
  }
  whyControls();
  episodeControls();
  byId("front").addEventListener("toggle", drawFront);
}

function changeTheme(name) {
  showTheme(name);
  try {
    localStorage.setItem("reptile-theme", name);
  } catch {
    // Pages opened from a file may have no storage: the theme then lasts as long as the page.
  }
  recolour();
}

function showTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme").value = name;
}

function rememberedTheme() {
  try {
    const name = localStorage.getItem("reptile-theme");
    return THEMES.includes(name) ? name : "auto";
  } catch {
    return "auto";
  }
}

// A canvas does not follow the style sheet.
function recolour() {
  spelled.clear();
  drawPlans();
}

function tell() {
  const { counts, name } = suite(), failed = counts.failed ? `, ${counts.failed} of them failed` : "";
  const who = `${plural(counts.agents, "agent")} on ${plural(counts.tasks, "task")} with ${plural(counts.seeds, "seed")}`;
  byId("told").textContent = `${name}: ${who}: ${plural(counts.runs, "run")}${failed}, ${plural(counts.plans, "evaluated plan")}.`;
  const { validation, unconfirmed, refused } = suite();
  byId("validation").textContent = `${validation}.`;
  byId("validation").className = unconfirmed ? "bad" : "quiet";
  const were = refused.length === 1 ? "was" : "were";
  byId("refused").textContent = `${plural(refused.length, "run")} ${were} refused by validation; the numbers below hold them all the same. See Failures.`;
  byId("refused").hidden = !refused.length;
}

// Tables that are wider than their place say that there is more: not every system shows a bar to scroll with.
function hintWide() {
  for (const box of document.querySelectorAll(".scroll")) {
    const hint = el("p", { class: "hint", hidden: true, "aria-hidden": "true" }, "more columns: scroll sideways →");
    box.before(hint);
    const update = () => (hint.hidden = box.scrollWidth <= box.clientWidth + 1);
    const observer = new ResizeObserver(update);
    observer.observe(box);
    observer.observe(box.firstElementChild);
  }
}

Object.assign(state, valid({}));
state.cost = task()?.cost ?? "macs";
controls();
showTheme(rememberedTheme());
view(["suite"], () => (tell(), drawFailures(), drawRun()));
view(["suite", "track", "scope", "zoom"], drawScores);
view(["suite", "track", "scope", "hidden"], drawProfiles);
view(["suite", "track", "scope", "x", "y", "scale", "hidden"], drawAnytime);
view(["suite", "track", "task", "cost", "range", "hidden"], drawPlans);
for (const { draw } of views) draw();
hintWide();
whenResized(byId("profiles-chart"), drawProfiles);
whenResized(byId("anytime-chart"), drawAnytime);
whenResized(byId("plans-chart"), drawPlans);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
