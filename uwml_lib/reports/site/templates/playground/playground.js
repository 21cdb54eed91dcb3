const element = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const fixed = (value, digits = 3) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
const escape = (text) => String(text).replace(/[&<"]/g, (letter) => `&#${letter.charCodeAt(0)};`);

// -------------------------------------------------------------------------------------------------------- the pictures

const SIDE = 420;  // of the plane, in its own units

// From a point, or from the edge of its mark: what a pair moves it, enlarged; with the greatest weight half way to the other.
function arrow([x, y], [dx, dy], share, kind, edge) {
  const length = Math.hypot(dx, dy), head = Math.min(length, 5 + 3 * share), [along, across] = [dx / length, dy / length];
  const at = (far, aside) => `${(x + (edge + far) * along - aside * across).toFixed(1)},${(y + (edge + far) * across + aside * along).toFixed(1)}`;
  return length < 1 ? "" : `<g class="${kind}" opacity="${(0.35 + 0.65 * share).toFixed(2)}"><path d="M${at(0, 0)}L${at(length - head, 0)}"/>`
    + `<path class="head" d="M${at(length, 0)}L${at(length - head, head / 2)}L${at(length - head, -head / 2)}Z"/></g>`;
}

// All points, seen in a window of a side (of SIDE units) that shows what is `reach` from its middle.
function pointsWithin(side, reach, [left, top]) {
  const {images, captions, weights} = world, place = ([x, y]) => [side / 2 * (1 + (x - left) / reach), side / 2 * (1 - (y - top) / reach)];
  const largest = Math.max(...weights.flat().map(Math.abs)) || 1, [us, vs] = [images.map(place), captions.map(place)];
  const arrows = weights.flatMap((row, i) => row.map((weight, j) => {
    const share = Math.abs(weight) / largest, kind = weight < 0 ? "wrong" : i === j ? "pull" : "push";
    const nearer = (weight > 0) === (i === j), half = (nearer ? share : -share) / 2, edge = nearer ? 0 : 9;
    const along = [half * (vs[j][0] - us[i][0]), half * (vs[j][1] - us[i][1])];
    return share < 0.02 ? "" : arrow(us[i], along, share, kind, edge) + arrow(vs[j], along.map((part) => -part), share, kind, edge);
  }));
  const number = ([x, y], i) => `<text x="${x}" y="${y + 4}">${i + 1}</text>`;
  const ties = us.map(([x, y], i) => `<line class="tie" x1="${x}" y1="${y}" x2="${vs[i][0]}" y2="${vs[i][1]}"/>`);
  const circles = vs.map(([x, y], i) => `<circle class="caption" cx="${x}" cy="${y}" r="9"/>${number([x, y], i)}`);
  const squares = us.map(([x, y], i) => `<rect class="image" x="${x - 8}" y="${y - 8}" width="16" height="16"/>${number([x, y], i)}`);
  return [...ties, ...arrows, ...circles, ...squares].join("");
}

function drawPlane() {
  const points = [...world.images, ...world.captions], middle = [0, 1].map((axis) => mean(points.map((point) => point[axis])));
  const reach = 1.15 * Math.max(1.7, ...points.flat().map(Math.abs)), near = 1.25 * Math.max(...points.map(([x, y]) => Math.hypot(x - middle[0], y - middle[1])));
  const lens = near > reach / 6 ? "" : `<svg x="${SIDE - 170}" y="${SIDE - 170}" width="165" height="165"><rect class="lens" width="165" height="165"/>`
    + `${pointsWithin(165, near, middle)}</svg><text x="${SIDE - 87}" y="${SIDE - 176}">magnified ${Math.round(165 / SIDE * reach / near)} times</text>`;
  element("plane").innerHTML = `<svg viewBox="0 0 ${SIDE} ${SIDE}" aria-hidden="true">${pointsWithin(SIDE, reach, [0, 0])}${lens}</svg>`;
}

function drawMatrix() {
  const {scores, weights} = world, N = DATA.pairs, least = Math.max(...weights.flat().map(Math.abs)) * 0.02;
  const cells = scores.flatMap((row, i) => row.map((score, j) => {
    const dark = Math.min(Math.max((score + 1) / 2, 0), 1).toFixed(3), cell = `<rect class="score" x="${j}" y="${i}" width="1" height="1" fill-opacity="${dark}"/>`;
    const own = i === j ? `<rect class="own" x="${j + 0.05}" y="${i + 0.05}" width=".9" height=".9"/>` : "";
    if (Math.abs(weights[i][j]) <= least) return cell + own;
    return cell + own + (weights[i][j] > 0 ? `<circle class="mark" cx="${j + 0.5}" cy="${i + 0.5}" r=".2"/>`
      : `<path class="cross" d="M${j + 0.25},${i + 0.25}l.5,.5m0,-.5l-.5,.5"/>`);
  }));
  element("matrix").innerHTML = `<svg viewBox="0 0 ${N} ${N}" role="img" aria-label="Score matrix; the summary has its means">${cells.join("")}</svg>`;
}

// On a scale of powers of ten, for a warm-up sums over many more pairs.
function drawCurve() {
  const {losses, levels} = world, steps = Math.max(50, losses.length - 1), top = Math.ceil(Math.log10(Math.max(1, ...losses, ...levels)));
  const y = (value) => 10 + 140 * (top - Math.log10(Math.max(value, 0.01))) / (top + 2), x = (k) => 40 + 250 * k / steps;
  const line = (values) => values.map((value, k) => `${x(k).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const scale = Array.from({length: top + 3}, (_, k) => 10 ** (k - 2)).map((value) => (
    `<path class="axis" d="M40,${y(value)}H290"/><text x="36" y="${y(value) + 4}" text-anchor="end">${Number(value.toPrecision(1))}</text>`
  ));
  element("curve").innerHTML = `<svg viewBox="0 0 300 180" role="img" aria-label="Loss against steps; the summary has its value">${scale.join("")}
    <polyline class="level" points="${line(levels)}"/><polyline points="${line(losses)}"/><circle cx="${x(losses.length - 1)}" cy="${y(losses.at(-1))}" r="3"/>
    <text x="40" y="168" text-anchor="middle">0</text><text x="165" y="172" text-anchor="middle">step</text><text x="290" y="168" text-anchor="end">${steps}</text></svg>`;
}

function summary() {
  const {scores, weights, positives, hardest, losses, levels} = world, N = DATA.pairs;
  const first = positives.filter((p, i) => p > hardest[i]).length, wrong = weights.flat().filter((weight) => weight < 0).length;
  return `Step ${world.step}${world.warm ? ", warm-up" : ""}: loss ${fixed(losses[world.step])} (${fixed(levels[world.step])} if all scores were equal). `
    + `The own caption scores highest for ${first} of ${N} images. Mean score of true pairs ${fixed(mean(positives), 2)}, `
    + `of hardest wrong pairs ${fixed(mean(hardest), 2)}. ` + (wrong ? `${wrong} pairs are moved the wrong way.` : "No pair is moved the wrong way.");
}

// ------------------------------------------------------------------------------------------------- keeping in step

let playing = null;

function draw(words = "") {
  drawPlane();
  drawMatrix();
  drawCurve();
  element("status").setAttribute("aria-live", playing ? "off" : "polite");
  element("status").textContent = `${summary()} ${words}`;
  element("play").textContent = playing ? "Pause" : "Play";
}

function fields() {
  const shown = Object.keys(DATA.parameters).filter((name) => name in settings && settings[name] !== undefined);
  element("parameters").innerHTML = shown.filter((name) => name !== "negatives" || settings.negatives).map((name) => {
    const options = choices(name), attributes = `data-setting="${name}"`;
    const field = options ? `<select ${attributes}>${options.map((option) => `<option>${option}</option>`).join("")}</select>`
      : isList(name) ? `<input ${attributes} autocomplete="off">` : `<input type="number" step="any" min="${LEAST[name]}" ${attributes}>`;
    return `<label${isList(name) ? ' class="list"' : ""}>${escape(DATA.parameters[name][0])} ${field}</label>`;
  }).join("");
  element("fit").hidden = DATA.losses[settings.loss].formula !== "polynomial";
  for (const field of all("[data-setting]")) field.value = isList(field.dataset.setting) ? (settings[field.dataset.setting] ?? []).join(", ") : settings[field.dataset.setting];
}

function show() {
  const same = ([, changes]) => Object.entries({...defaults(changes.loss), ...changes}).every(([name, value]) => String(settings[name]) === String(value));
  const preset = Object.entries(DATA.presets).find(same)?.[0], buttons = all("[data-preset]");
  for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.preset === preset);
  const words = buttons.find((button) => button.dataset.preset === preset)?.dataset.words;
  element("preset").textContent = words ?? "Settings of your own. Each of these buttons shows one thing, and says what to notice.";
  history.replaceState(null, "", `#${toFragment()}`);
  fields();
  draw();
}

function pause() {
  clearInterval(playing);
  playing = null;
}

function advance(steps = 1) {
  for (let k = 0; k < steps; k++) {
    if (step()) continue;
    pause();
    return draw("The points flew apart: take a smaller learning rate and press reset.");
  }
  draw();
}

function play() {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;  // then a new picture a second, not a film
  if (playing) pause(); else playing = setInterval(() => advance(still ? 10 : 1), still ? 1000 : 100);
  draw();
}

function fit() {
  const fitted = fromScores(world.positives, world.hardest);
  if (!fitted) return draw("All scores are equal: nothing to fit to.");
  for (const name of ["positive", "negative"]) settings[name] = fitted[name].map((value) => Number(value.toFixed(4)));
  measure();
  show();
}

function change(field) {
  const name = field.dataset.setting, value = parsed(name, field.value);
  field.setAttribute("aria-invalid", value === undefined);
  if (value === undefined) return;
  if (name === "loss") settings = {...defaults(value), start: settings.start, seed: settings.seed, warmup: settings.warmup};
  settings[name] = value;
  if (name === "start" || name === "seed") reset(); else measure();
  const focused = document.activeElement.dataset.setting;
  show();
  document.querySelector(`[data-setting="${focused}"]`)?.focus();
}

function fromFragment() {
  pause();
  accept(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
  reset();
  show();
}

element("play").addEventListener("click", play);
element("step").addEventListener("click", () => { pause(); advance(); });
element("reset").addEventListener("click", () => { pause(); reset(); draw(); });
element("fit").addEventListener("click", fit);
element("settings").addEventListener("change", (event) => change(event.target));
element("plane").addEventListener("keydown", (event) => {
  if (event.key !== " " && event.key !== "ArrowRight") return;
  event.preventDefault();
  if (event.key === " ") play(); else { pause(); advance(); }
});
for (const button of all("[data-preset]")) {
  button.addEventListener("click", () => {
    pause();
    accept(DATA.presets[button.dataset.preset]);
    reset();
    show();
  });
}
addEventListener("hashchange", fromFragment);
fromFragment();

// For whoever wants the numbers: the state, and a way to change it.
window.playground = {
  settings: () => structuredClone(settings), state: () => structuredClone(world), step: (steps) => advance(steps),
};
