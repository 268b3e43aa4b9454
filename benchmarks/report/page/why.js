// Why the best plans are as they are; what failed; what was run.

const why = { plan: 0 };

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
  const finders = and(found.map(({ agent, seed, evaluation }) => `${agent} (seed ${seed}, plan ${whole(evaluation)})`));
  const told = `Found by ${finders}: ${metric} at ${cost}, return ${fixed(plan.return, 3)}.`;
  if (error) return `${told} It could not be explained: ${error}`;
  if (!groups) return `${told} It was not explained (--no-explain).`;
  const better = groups.filter((group) => group.undo_return > 0 || group.deeper_return > 0).length;
  if (!better) return `${told} No group alone can be changed for the better.`;
  return `${told} ${plural(better, "group")} of ${groups.length} could be changed for the better (bold).`;
}

function whyTable(current, groups) {
  const most = Math.max(...groups.flatMap((group) => [Math.abs(group.undo_return), Math.abs(group.deeper_return)]));
  const quantities = [current.metric, COSTS[current.cost], "return"];
  // What costs the same is the same plan: there is nothing to undo, or nothing more to remove.
  const changes = (group, what) => {
    const [metric, cost, worth] = ["metric", "cost", "return"].map((quantity) => group[`${what}_${quantity}`]);
    if (!cost) return quantities.map(() => el("td", {}, MISSING));
    const bar = around(worth, most, signed(worth, 3));
    bar.classList.toggle("good", worth > 0);
    return [el("td", {}, signed(metric, 4)), el("td", {}, signedPercent(cost)), bar];
  };
  const line = (group) =>
    el(
      "tr", { title: group.reason },
      el("th", { scope: "row" }, group.group),
      share(group.kept, group.size, `${group.kept} of ${group.size}`),
      ...changes(group, "undo"),
      ...changes(group, "deeper"),
    );
  const tall = (text) => el("th", { scope: "col", rowspan: 2 }, text);
  const wide = (text) => el("th", { scope: "colgroup", colspan: quantities.length }, text);
  return [
    el(
      "thead", {},
      el("tr", {}, tall("group"), tall("channels kept"), wide("undoing its cut"), wide("one step deeper")),
      el("tr", {}, ...[...quantities, ...quantities].map((text) => el("th", { scope: "col" }, text))),
    ),
    el("tbody", {}, ...groups.map(line)),
  ];
}

function drawFailures() {
  const { failures, on_test } = suite();
  byId("failures-list").replaceChildren(...listedFailures(failures), ...listedOnTest(on_test));
}

const runTitle = ({ agent, task, seed }) => `${agent} on ${task}, seed ${seed}`;
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
  byId("run-list").replaceChildren(el("dl", {}, ...listed));
}
