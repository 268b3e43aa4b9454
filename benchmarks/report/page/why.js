// Why the best plans are as they are; what failed; what was run.

const why = { plan: 0 };
// The neighbours of a plan that are measured for each group: what they are called, and what their step leads to.
const CHANGES = [
  ["undo", "undoing its cut", null],
  ["deeper", "one step deeper", ["to", ({ deeper_kept }) => whole(deeper_kept)]],
  ["bits", "fewer bits", ["to", ({ fewer_bits }) => whole(fewer_bits)]],
  ["rank", "lower rank", ["to", ({ lower_rank }) => percent(lower_rank)]],
];
const changesOf = (groups) => CHANGES.filter(([what]) => groups.some((group) => known(group[`${what}_return`])));

function whyControls() {
  const plans = el("select", { id: "why-plan", change: () => ((why.plan = Number(plans.value)), drawWhy()) });
  byId("why-choices").append(
    selector("task", "Task", taskNumbers, { numeric: true }),
    el("label", { class: "choice" }, "Best plan of", plans),
  );
  view(["suite", "task"], () => {
    const explained = task()?.explanations ?? [];
    const title = ({ found, plan }) => `${and(found.map(({ agent }) => agent))} (return ${fixed(plan.return, 3)})`;
    plans.replaceChildren(...explained.map((each, i) => el("option", { value: i }, title(each))));
    plans.disabled = explained.length < 2;
    why.plan = 0;
    drawWhy();
  });
}

function drawWhy() {
  const current = task(), best = current?.explanations[why.plan];
  byId("why-told").textContent = best ? whyTold(current, best) : "No plan to explain.";
  byId("why-table").replaceChildren(...(best?.groups ? whyTable(current, best.groups) : []));
}

function whyTold(current, { found, plan, groups, error }) {
  const cost = `${percent(plan[current.cost] / current.dense[current.cost], 1)} of the ${COSTS[current.cost]}`;
  const metric = `${current.metric} ${fixed(plan.metric, 4)} (dense ${fixed(current.dense.metric, 4)})`;
  const finder = ({ agent, seed, evaluation, refused }) => `${agent} (seed ${seed}, plan ${whole(evaluation)}${refused ? REFUSED : ""})`;
  const finders = and(found.map(finder));
  const told = `Found by ${finders}: ${metric} at ${cost}, return ${fixed(plan.return, 3)}.`;
  if (error) return `${told} It could not be explained: ${error}`;
  if (!groups) return `${told} It was not explained (--no-explain).`;
  const changes = changesOf(groups);
  const better = groups.filter((group) => changes.some(([what]) => group[`${what}_return`] > 0)).length;
  if (!better) return `${told} ${noneHelps(groups, changes)}`;
  return `${told} ${plural(better, "group")} of ${groups.length} could be changed for the better (bold).`;
}

// What was measured, and no more: other widths, and changes of two groups at once, were not.
function noneHelps(groups, changes) {
  const steps = groups.map(({ kept, deeper_kept }) => kept - deeper_kept).filter((step) => step > 0);
  const [least, most] = [Math.min(...steps), Math.max(...steps)];
  const step = least === most ? plural(most, "channel") : `${whole(least)} to ${whole(most)} channels`;
  const tried = ["giving a group back whole"];
  if (steps.length) tried.push(`cutting one step deeper (${step})`);
  if (changes.some(([what]) => what === "bits")) tried.push("one level fewer bits");
  if (changes.some(([what]) => what === "rank")) tried.push("a rank one step lower");
  const none = tried.length > 1 ? `Neither ${tried.join(", nor ")} helps` : `${capital(tried[0])} does not help`;
  return `${none}. Other widths, and changes of several groups at once, were not measured.`;
}

function whyTable(current, groups) {
  const changed = changesOf(groups);
  const most = Math.max(...groups.flatMap((group) => changed.map(([what]) => Math.abs(group[`${what}_return`] ?? 0))));
  const quantities = [current.metric, COSTS[current.cost], "return"];
  const heads = changed.flatMap(([, , leads]) => [...(leads ? [leads[0]] : []), ...quantities]);
  // What costs the same is the same plan: there is nothing to undo, or nothing more to remove.
  const changes = (group, what, leads) => {
    const [metric, cost, worth] = ["metric", "cost", "return"].map((quantity) => group[`${what}_${quantity}`]);
    if (!cost) return [...(leads ? [MISSING] : []), ...quantities.map(() => MISSING)].map((text) => el("td", {}, text));
    const bar = around(worth, most, signed(worth, 3));
    bar.classList.toggle("good", worth > 0);
    const place = leads ? [el("td", {}, leads[1](group))] : [];
    return [...place, el("td", {}, signed(metric, 4)), el("td", {}, signedPercent(cost)), bar];
  };
  const line = (group) =>
    el(
      "tr", { title: group.reason },
      el("th", { scope: "row" }, group.group),
      share(group.kept, group.size, `${group.kept} of ${group.size}`),
      ...changed.flatMap(([what, , leads]) => changes(group, what, leads)),
    );
  const tall = (text) => el("th", { scope: "col", rowspan: 2 }, text);
  const wide = ([, text, leads]) => el("th", { scope: "colgroup", colspan: quantities.length + (leads ? 1 : 0) }, text);
  return [
    el(
      "thead", {},
      el("tr", {}, tall("group"), tall("channels kept"), ...changed.map(wide)),
      el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text))),
    ),
    el("tbody", {}, ...groups.map(line)),
  ];
}

function drawFailures() {
  const { failures, on_test, refused } = suite();
  byId("failures-list").replaceChildren(...listedFailures(failures), ...listedRefused(refused), ...listedOnTest(on_test));
}

const runTitle = ({ agent, task, seed }) => `${agent} on ${task}, seed ${seed}`;

function listedRefused(runs) {
  if (!runs.length) return [];
  const told = `${plural(runs.length, "run")} refused by validation: not confirmed by measuring again, and in the figures all the same:`;
  const listed = (each) => el("li", {}, `${runTitle(each)}: `, el("code", {}, each.error));
  return [el("p", { class: "bad" }, told), el("ul", {}, ...runs.map(listed))];
}
const lastLine = (text) => text.trim().split("\n").pop();

function listedFailures(failures) {
  if (!failures.length) return [el("p", {}, "None: every run is done and has a score.")];
  const they = failures.length === 1 ? "It is" : "They are";
  const count = `${plural(failures.length, "run")} without a score`;
  const told = `${count}. ${they} missing from every figure, and no winner is marked meanwhile.`;
  const listed = (each) =>
    el(
      "details", {},
      el("summary", {}, `${runTitle(each)}: `, el("code", {}, lastLine(each.error))),
      el("pre", { tabindex: 0 }, each.error),
    );
  return [el("p", { class: "bad" }, told), ...failures.map(listed)];
}

function listedOnTest(runs) {
  if (!runs.length) return [];
  const told = `${plural(runs.length, "run")} of agents that had learnt on test networks, told of here and scored nowhere:`;
  return [el("p", { class: "bad" }, told), el("ul", {}, ...runs.map((each) => el("li", {}, runTitle(each))))];
}

function drawRun() {
  const told = (values) => {
    if (values.length === 1) return String(values[0][0]);
    return values.map(([value, count]) => `${value} (${plural(count, "run")})`).join("; ");
  };
  const listed = suite().run.flatMap(({ what, values }) => [el("dt", {}, what), el("dd", {}, told(values))]);
  const validated = el("p", { class: suite().unconfirmed ? "bad" : null }, `${suite().validation}.`);
  byId("run-list").replaceChildren(validated, el("dl", {}, ...listed));
}
