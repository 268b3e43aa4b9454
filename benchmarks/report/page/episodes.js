// One episode, decision by decision: what each group keeps, what that measures, and the reward.

const viewer = { task: null, columns: null, episodes: [], steps: [], run: 0, episode: 0, step: 0, timer: null };
const PAUSE = 700; // milliseconds a step, when it plays

// Rows of a run's episodes: [first, one after the last].
function episodesOf(run, columns) {
  const found = [];
  for (let row = run.start; row < run.start + run.count; row++) {
    if (row > run.start && columns.episode[row] === columns.episode[row - 1]) found[found.length - 1][1] = row + 1;
    else found.push([row, row + 1]);
  }
  return found;
}

// Decisions of an episode; those that were not measured one by one hold null for what only a measurement tells.
function stepsOf(current, columns, [first, end]) {
  const groups = current.groups.length, steps = [];
  let before = Array.from(current.sizes), last = -1, total = 0;
  for (let row = first; row < end; row++) {
    const after = widthsOf(current, columns, row), { bits, ranks } = levelsOf(current, columns, row);
    let group = last;
    do {
      group = (group + 1) % groups;
      const measured = group === columns.group[row];
      const measurement = { row: measured ? row : null, reward: measured ? columns.episode_return[row] - total : null };
      steps.push({ group, kept: after[group], of: before[group], bits: bits?.[group], rank: ranks?.[group], ...measurement });
      before[group] = after[group];
    } while (group !== columns.group[row]);
    total = columns.episode_return[row];
    last = columns.group[row];
  }
  return steps;
}

async function openRun(run, row = null) {
  stopPlaying();
  const current = task();
  const columns = current?.count ? await plansOf(current) : null;
  if (current !== task()) return; // another task was chosen meanwhile
  Object.assign(viewer, { task: current, columns, run });
  viewer.episodes = columns && current.runs[run] ? episodesOf(current.runs[run], columns) : [];
  const wanted = row ?? current?.runs[run]?.best ?? null;
  const found = viewer.episodes.findIndex(([first, end]) => wanted !== null && wanted >= first && wanted < end);
  openEpisode(Math.max(0, found), wanted);
}

function openEpisode(episode, row = null) {
  viewer.episode = episode;
  viewer.steps = viewer.episodes.length ? stepsOf(viewer.task, viewer.columns, viewer.episodes[episode]) : [];
  const at = viewer.steps.findIndex((step) => step.row !== null && step.row === row);
  viewer.step = at < 0 ? viewer.steps.length : at + 1;
  drawEpisode();
}

// A plan of the scatter, in the episode that it was found in.
function openPlan(row) {
  openRun(scatter.columns.run[row], row);
  byId("episodes").scrollIntoView();
  byId("episode-step").focus({ preventScroll: true });
}

function episodeControls() {
  const chosen = () => Math.max(1, Math.min(viewer.episodes.length, Number(number.value)));
  const runs = el("select", { id: "episode-run", change: () => openRun(Number(runs.value)) });
  const number = el("input", { id: "episode-number", type: "number", min: 1, change: () => openEpisode(chosen() - 1) });
  const step = { id: "episode-step", type: "range", min: 0, "aria-label": "Step of the episode" };
  const range = el("input", { ...step, input: () => goTo(Number(range.value)) });
  const button = (id, text, label, click) => el("button", { id, type: "button", "aria-label": label, click }, text);
  byId("episodes-choices").append(
    selector("task", "Task", taskNumbers, { numeric: true }),
    el("label", { class: "choice" }, "Run", runs),
    el("label", { class: "choice" }, "Episode", number, el("span", { id: "episode-count" })),
    button("episode-best", "best plan's episode", "The episode of the run's best plan", () => openRun(viewer.run)),
  );
  byId("episodes-steps").append(
    button("episode-back", "◀", "One step back", () => goTo(viewer.step - 1)),
    range,
    button("episode-on", "▶", "One step on", () => goTo(viewer.step + 1)),
    button("episode-play", "play", "Play the episode", togglePlaying),
  );
  view(["suite", "track", "task", "hidden"], () => listRuns(runs));
}

// The runs that there are to choose from; the one that is open stays so where it can.
function listRuns(runs) {
  const current = task(), there = (run) => run.count && run.tracks.includes(track().name) && shown(run.agent);
  const list = (current?.runs ?? []).map((run, i) => [run, i]).filter(([run]) => there(run));
  list.sort(([a], [b]) => a.agent.localeCompare(b.agent) || a.seed - b.seed);
  runs.replaceChildren(...list.map(([run, i]) => el("option", { value: i }, `${run.agent}, seed ${run.seed}${run.refused ? REFUSED : ""}`)));
  if (viewer.task === current && list.some(([, i]) => i === viewer.run)) runs.value = String(viewer.run);
  else openRun(list.length ? bestRun(list) : -1);
}

function bestRun(list) {
  const worth = ([run]) => run.best_return ?? -Infinity;
  return list.reduce((best, each) => (worth(each) > worth(best) ? each : best))[1];
}

function goTo(step) {
  viewer.step = Math.max(0, Math.min(viewer.steps.length, step));
  drawEpisode();
}

function togglePlaying() {
  if (viewer.timer) {
    stopPlaying();
    return;
  }
  if (viewer.step >= viewer.steps.length) goTo(0);
  byId("episode-play").textContent = "pause";
  viewer.timer = setInterval(() => (viewer.step >= viewer.steps.length ? stopPlaying() : goTo(viewer.step + 1)), PAUSE);
}

function stopPlaying() {
  clearInterval(viewer.timer);
  viewer.timer = null;
  byId("episode-play").textContent = "play";
}

function drawEpisode() {
  const { task: current, steps, step, episodes } = viewer, none = !episodes.length;
  if (current?.runs[viewer.run]) byId("episode-run").value = String(viewer.run);
  const all = current?.runs[viewer.run]?.episodes ?? 0, some = all > episodes.length;
  const shownEpisode = { value: none ? "" : viewer.episode + 1, max: Math.max(1, episodes.length), disabled: none };
  Object.assign(byId("episode-number"), shownEpisode);
  const held = `${whole(episodes.length)} of ${whole(all)} episodes shown`;
  byId("episode-count").textContent = some ? `of ${whole(episodes.length)} (${held})` : `of ${whole(episodes.length)}`;
  Object.assign(byId("episode-step"), { max: steps.length, value: step, disabled: none });
  byId("episode-back").disabled = step <= 0;
  byId("episode-on").disabled = step >= steps.length;
  byId("episode-play").disabled = byId("episode-best").disabled = none;
  byId("episodes-told").textContent = none ? "No run to step through." : stepTold();
  byId("episodes-round").hidden = none || steps.every((each) => each.row !== null);
  byId("episodes-table").replaceChildren(...(none ? [] : stepTable()));
}

function stepTold() {
  const { task: current, columns, steps, step } = viewer;
  if (step === 0) return `Start: the dense network, ${current.metric} ${fixed(current.dense.metric, 4)}.`;
  const { group, kept, of, row, reward } = steps[step - 1];
  const decided = `Step ${step} of ${steps.length}: ${current.groups[group]} keeps ${kept} of ${of}`;
  if (row === null) return `${decided}. Measured at the end of the round.`;
  const cost = `${percent(columns[current.cost][row] / current.dense[current.cost])} of the ${COSTS[current.cost]}`;
  const measured = `${current.metric} ${fixed(columns.metric[row], 4)} at ${cost}`;
  return `${decided}; ${measured}; reward ${signed(reward, 3)}, return ${fixed(columns.episode_return[row], 3)}.`;
}

function stepTable() {
  const { task: current, columns, steps, step } = viewer;
  const most = Math.max(...steps.map((each) => Math.abs(each.reward ?? 0)));
  const levels = columns.bits ? ["bits", "rank"] : [];
  const measured = [`validation ${current.metric}`, COSTS[current.cost], "reward", "return"];
  const head = ["group", "channels kept", "removed", ...levels, ...measured];
  const line = (each, i) => {
    const later = i >= step, left = later ? each.of : each.kept, dense = current.sizes[each.group];
    const cells = later ? head.slice(2).map(() => el("td", {}, "")) : stepCells(each, current, columns, most);
    const name = el("th", { scope: "row" }, current.groups[each.group]);
    const kind = i === step - 1 ? "now" : later ? "later" : null;
    return el("tr", { class: kind }, name, share(left, dense, `${left} of ${dense}`), ...cells);
  };
  return [headed(head), el("tbody", {}, ...steps.map(line))];
}

function stepCells({ kept, of, bits, rank, row, reward }, current, columns, most) {
  const levels = bits === undefined ? [] : [String(bits), percent(rank)];
  const decided = [percent(1 - kept / of), ...levels].map((text) => el("td", {}, text));
  if (row === null) return [...decided, ...["·", "·", "·", "·"].map((text) => el("td", {}, text))];
  const cost = percent(columns[current.cost][row] / current.dense[current.cost]);
  return [
    ...decided,
    el("td", {}, fixed(columns.metric[row], 4)),
    el("td", {}, cost),
    around(reward, most, signed(reward, 3)),
    el("td", {}, fixed(columns.episode_return[row], 3)),
  ];
}
