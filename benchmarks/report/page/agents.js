// How each agent looks everywhere: a colour, a dash and a marker, so that nothing hangs on colour alone.

const COLOURS = 7;
const DASHES = ["", "8 3", "2 3", "9 3 2 3"];
const MARKERS = [
  (r) => `M${r} 0A${r} ${r} 0 1 1 ${-r} 0A${r} ${r} 0 1 1 ${r} 0Z`,
  (r) => `M${-0.88 * r} ${-0.88 * r}H${0.88 * r}V${0.88 * r}H${-0.88 * r}Z`,
  (r) => `M0 ${-1.15 * r}L${1.1 * r} ${0.8 * r}H${-1.1 * r}Z`,
  (r) => `M0 ${-1.25 * r}L${1.25 * r} 0L0 ${1.25 * r}L${-1.25 * r} 0Z`,
  (r) => `M0 ${1.15 * r}L${1.1 * r} ${-0.8 * r}H${-1.1 * r}Z`,
  (r) => plus(r, 0.36 * r),
  (r) => cross(r, 0.34 * r),
  (r) => star(1.35 * r, 0.55 * r),
];

function plus(r, t) {
  return `M${-t} ${-r}H${t}V${-t}H${r}V${t}H${t}V${r}H${-t}V${t}H${-r}V${-t}H${-t}Z`;
}

function cross(r, t) {
  const a = r - t;
  const upper = [[-r, -a], [-a, -r], [0, -t], [a, -r], [r, -a], [t, 0]];
  const points = [...upper, ...upper.map(([x, y]) => [-x, -y])];
  return `M${points.map((point) => point.join(" ")).join("L")}Z`;
}

function star(outer, inner) {
  const points = Array.from({ length: 10 }, (_, i) => {
    const r = i % 2 ? inner : outer, angle = (Math.PI * i) / 5 - Math.PI / 2;
    return `${(r * Math.cos(angle)).toFixed(2)} ${(r * Math.sin(angle)).toFixed(2)}`;
  });
  return `M${points.join("L")}Z`;
}

function style(name) {
  const i = Math.max(0, SUMMARY.agents.indexOf(name));
  return { colour: `var(--series-${i % COLOURS})`, dash: DASHES[i % DASHES.length], marker: MARKERS[i % MARKERS.length] };
}

function sample(name, width = 30) {
  const look = style(name);
  return svg(
    "svg", { class: "sample", width, height: 14, viewBox: `0 -7 ${width} 14`, "aria-hidden": "true" },
    svg("line", { x1: 0, x2: width, stroke: look.colour, "stroke-width": 2, "stroke-dasharray": look.dash }),
    svg("path", { d: look.marker(4), transform: `translate(${width / 2} 0)`, fill: look.colour }),
  );
}

// What a colour of the style sheet is under the theme of now: canvases need it spelled out.
// Asking makes the browser lay out the page, so it is done once.
const spelled = new Map();
function resolved(colour) {
  if (!spelled.has(colour)) {
    const probe = el("span", { hidden: true });
    probe.style.color = colour;
    document.body.append(probe);
    spelled.set(colour, getComputedStyle(probe).color);
    probe.remove();
  }
  return spelled.get(colour);
}

// Which agents are drawn: one row of boxes under each figure, all of one state.
function agentBoxes(host, dim) {
  const boxes = new Map();
  const show = (names) => set({ hidden: new Set(track().agents.filter((name) => !names.includes(name))) });
  const draw = () => {
    const names = track().agents;
    if ([...boxes.keys()].join("\n") !== names.join("\n")) {
      boxes.clear();
      host.replaceChildren();
      for (const name of names) {
        const change = () => show(names.filter((each) => boxes.get(each).checked));
        const box = el("input", { type: "checkbox", "data-agent": name, change });
        boxes.set(name, box);
        host.append(el("label", { pointerenter: () => dim(name), pointerleave: () => dim(null) }, box, sample(name), name));
      }
      host.append(el("button", { type: "button", click: () => show(names) }, "all"));
      host.append(el("button", { type: "button", click: () => show([]) }, "none"));
    }
    for (const [name, box] of boxes) box.checked = shown(name);
  };
  host.setAttribute("role", "group");
  host.setAttribute("aria-label", "Agents that are drawn");
  view(["suite", "track", "hidden"], draw);
}
