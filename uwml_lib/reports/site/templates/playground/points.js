// What the page is set to, and what becomes of its points; nothing here knows of the page.
const mean = (xs) => sum(xs) / xs.length;
let settings;
const defaults = (loss) => ({...DATA.start, loss, rate: DATA.rates[DATA.losses[loss].formula], ...DATA.losses[loss].settings});
const choices = (name) => ({
  start: DATA.starts, loss: Object.keys(DATA.losses), clamp: ["each", "sum"], negatives: ["hardest", DATA.losses[settings.loss].dense[1]],
})[name];
const isList = (name) => ["positive", "negative", "coefficients"].includes(name);
const LEAST = {seed: 1, rate: 0, warmup: 0, ...Object.fromEntries(Object.entries(DATA.parameters).map(([name, [, least]]) => [name, least]))};

// A setting read from text; undefined where that is none.
function parsed(name, text) {
  if (choices(name)) return choices(name).includes(text) ? text : undefined;
  if (isList(name)) {
    const numbers = text.trim().split(/[\s,]+/).map(Number);
    if (!text.trim()) return name === "coefficients" ? null : undefined;
    return numbers.every(Number.isFinite) ? numbers : undefined;
  }
  const number = text.trim() ? Number(text) : NaN, whole = name === "seed" || name === "warmup";
  return Number.isFinite(number) && number >= LEAST[name] && (!whole || Number.isInteger(number)) ? number : undefined;
}

// The fragment holds what differs from the start.
function toFragment() {
  const usual = defaults(settings.loss), loss = settings.loss === DATA.start.loss ? [] : ["loss"];
  const changed = Object.keys(usual).filter((name) => String(settings[name]) !== String(usual[name]));
  return [...loss, ...changed].map((name) => `${name}=${settings[name] ?? ""}`).join("&");
}

function accept(texts) {
  settings = defaults(Object.hasOwn(DATA.losses, texts.loss ?? "") ? texts.loss : DATA.start.loss);
  for (const [name, text] of Object.entries(texts)) {
    const value = Object.hasOwn(settings, name) && name !== "positive_ceiling" ? parsed(name, String(text)) : undefined;
    if (value !== undefined) settings[name] = value;
  }
}

// -------------------------------------------------------------------------------------------- the points and their loss

let world;

// Random numbers that are the same everywhere: mulberry32, and two of them made a normal one.
function normals(seed) {
  const uniform = () => {
    seed = (seed + 0x6D2B79F5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

function reset() {
  const normal = normals(settings.seed), {apart, spread, noise} = {
    random: {apart: 0, spread: 0, noise: 0.8}, collapsed: {apart: 0, spread: 0, noise: 0.03},
    dead: {apart: 1.25, spread: 0.1, noise: 0.03}, low: {apart: 1.8, spread: 0.6, noise: 0.08},
  }[settings.start];
  const points = (side) => Array.from({length: DATA.pairs}, (_, i) => (
    [side * apart / 2 + noise * normal(), spread * (2 * i / (DATA.pairs - 1) - 1) + noise * normal()]
  ));
  world = {step: 0, images: points(-1), captions: points(1), losses: [], levels: []};
  measure();
}

// The scores 1 - d²/2, their loss and every pair's weight; a warm-up trains the loss's form on all negatives.
function measure() {
  const {images, captions, step} = world, {formula, dense: [denseFormula, negatives]} = DATA.losses[settings.loss];
  const warm = step < settings.warmup, own = warm ? {...settings, negatives} : settings;
  const scores = images.map(([x, y]) => captions.map(([a, b]) => 1 - ((x - a) ** 2 + (y - b) ** 2) / 2));
  const lossAt = (matrix) => lossOf(warm ? denseFormula : formula, own, matrix), {loss, weights} = lossAt(scores);
  const positives = scores.map((row, i) => row[i]), level = mean(positives);
  const hardest = scores.map((row, i) => Math.max(...row.filter((_, j) => j !== i)));
  world.losses[step] = loss / DATA.pairs;
  world.levels[step] = lossAt(scores.map((row) => row.map(() => level))).loss / DATA.pairs;
  Object.assign(world, {warm, scores, positives, hardest, weights: weights.map((row) => row.map((weight) => weight / DATA.pairs))});
}

// Gradient descent. A score grows with dS/du = v - u and dS/dv = u - v; a true pair is pulled, a wrong one pushed.
function step() {
  const {images, captions, weights} = world, moved = {images: images.map((u) => [...u]), captions: captions.map((v) => [...v])};
  images.forEach((u, i) => captions.forEach((v, j) => [0, 1].forEach((axis) => {
    const pull = (i === j ? 1 : -1) * settings.rate * weights[i][j] * (v[axis] - u[axis]);
    moved.images[i][axis] += pull;
    moved.captions[j][axis] -= pull;
  })));
  if (![...moved.images, ...moved.captions].flat().every((value) => Math.abs(value) < 1e3)) return false;
  Object.assign(world, moved, {step: world.step + 1});
  measure();
  return true;
}
