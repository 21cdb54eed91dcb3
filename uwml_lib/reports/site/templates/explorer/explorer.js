const DATA = JSON.parse(document.getElementById("data").textContent);
const KINDS = ["positive", "negative"], QUANTITIES = ["weight", "loss"];
const VARIABLE = {positive: "p", negative: "n"};
const HEIGHT = {weight: 220, loss: 130};
const dark = matchMedia("(prefers-color-scheme: dark)");
const all = (selector) => [...document.querySelectorAll(selector)];
const fixed = (value, digits = 4) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");

// A loss is told by colour (on a light and on a dark page), by dashes and by markers; with 8, 7 and 5 of them, no two losses
// look the same.
const COLOURS = [["#0072b2", "#56b4e9"], ["#c04f00", "#ff9d5c"], ["#00795a", "#2ecc9b"], ["#a33b78", "#f0a3cd"],
  ["#6b5500", "#e3c04a"], ["#5646b8", "#b3a7ff"], ["#4d4d4d", "#c4c4c4"], ["#8f2a1c", "#ff998a"]];
const DASHES = [[1, 0], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2], [12, 4]];
const SHAPES = ["M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z", "M-.9-.9H.9V.9H-.9Z", "M0-1.1L1.1,.9H-1.1Z", "M0-1.2L1.2,0L0,1.2L-1.2,0Z",
  "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z"];
const look = (list, name) => list[DATA.losses.indexOf(name) % list.length];
const colour = (name) => look(COLOURS, name)[Number(dark.matches)];
const THEMES = [
  {ink: "#222", grid: "#e3e3e3", out: "#f1f1f1", dead: "#d9d9d9", wrong: "#f8cfc4"},
  {ink: "#e6e6e6", grid: "#383838", out: "#232323", dead: "#444", wrong: "#5e2c22"},
];
const WORDS = {out: "no part", dead: "dead zone", wrong: "wrong way"};

// ------------------------------------------------------------------------------------------------------ the settings

const settings = {...structuredClone(DATA.start), ceiling: DATA.ceiling};

// Only what is a setting, and possible, is taken over.
function accept(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (Object.hasOwn(DATA.bounds, name)) {
      const [low, high] = DATA.bounds[name], number = typeof value === "string" && !value.trim() ? NaN : Number(value);
      if (number >= low && number <= high) settings[name] = number;
    } else if (Object.hasOwn(DATA.choices, name)) {
      if (DATA.choices[name].includes(value)) settings[name] = value;
    } else if (name === "show") {
      const known = DATA.losses.filter((loss) => value.includes(loss));
      if (known.length || !value.join("")) settings.show = known;
    }
  }
}

// The fragment holds what differs from the start.
function toFragment() {
  const changed = Object.keys(DATA.start).filter((name) => String(settings[name]) !== String(DATA.start[name]));
  return changed.map((name) => `${name}=${settings[name]}`).join("&");
}

function fromFragment() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if ("show" in given) given.show = given.show.split(",");
  accept(DATA.start);
  accept(given);
}

// -------------------------------------------------------------------------------------------------------- the curves

const nearest = (held) => DATA.held.reduce((best, value) => Math.abs(value - held) < Math.abs(best - held) ? value : best);
const heldFor = (kind) => settings[kind === "positive" ? "negative_held" : "positive_held"];

function curve(name, kind) {
  if (name in LIVE) return DATA.similarities.map((similarity) => livePoint(name, kind, settings, similarity));
  const {loss, weight} = DATA.curves[name][kind][DATA.held.indexOf(nearest(heldFor(kind)))];
  return DATA.similarities.map((similarity, k) => ({similarity, loss: loss[k], weight: weight[k], used: true}));
}

function zones(name, kind, points = curve(name, kind)) {
  return stretches(points, name in LIVE ? (similarity) => livePoint(name, kind, settings, similarity) : null);
}

function pointAt(name, kind, similarity) {
  if (name in LIVE) return livePoint(name, kind, settings, similarity);
  return curve(name, kind)[DATA.similarities.findIndex((value) => Math.abs(value - similarity) < 0.0051)];
}

// -------------------------------------------------------------------------------------------------------- the charts

function chart(kind, quantity) {
  const theme = THEMES[Number(dark.matches)];
  const byName = (values) => ({type: "ordinal", domain: DATA.losses, range: values});
  const [x, y] = [{scale: "x", field: "similarity"}, {scale: "y", field: quantity}];
  const stroke = {scale: "colour", field: "name"};
  const across = {x: {value: 0}, x2: {signal: "width"}};
  return {
    description: `${quantity} of a ${kind} pair against its similarity; the numbers are in the table below`,
    width: 300, height: HEIGHT[quantity], autosize: "none", padding: {left: 56, right: 12, top: 6, bottom: 40},
    signals: [{name: "low", value: 0}, {name: "high", value: 1}, {name: "at", value: 0}, {name: "unit", value: ""}],
    data: [
      {name: "zones"},
      {name: "curves"},
      {name: "marked", source: "curves", transform: [{type: "filter", expr: "datum.step % 20 == 10"}]},
      {name: "read"},
    ],
    scales: [
      {name: "x", type: "linear", domain: [-1, 1], range: "width"},
      {name: "y", type: "linear", domain: [{signal: "low"}, {signal: "high"}], zero: false,
        range: [{signal: "height"}, 16]},  // above: the words of a zone
      {name: "colour", ...byName(DATA.losses.map(colour))},
      {name: "shape", ...byName(DATA.losses.map((name) => look(SHAPES, name)))},
      {name: "zone", type: "ordinal", domain: Object.keys(WORDS), range: Object.keys(WORDS).map((state) => theme[state])},
    ],
    axes: [
      {orient: "bottom", scale: "x", title: `similarity ${VARIABLE[kind]} of the ${kind} pair`, tickCount: 5, grid: true},
      {orient: "left", scale: "y", title: {signal: `"${quantity}" + unit`}, tickCount: quantity === "weight" ? 6 : 4, grid: true,
        titleX: -46, format: "~r"},
    ],
    config: {
      axis: {labelColor: theme.ink, titleColor: theme.ink, gridColor: theme.grid, domainColor: theme.ink, tickColor: theme.ink,
        labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal", aria: false},
      text: {font: "system-ui, sans-serif"},
    },
    marks: [
      {type: "rect", from: {data: "zones"}, clip: true, aria: false, encode: {update: {
        x: {scale: "x", field: "from"}, x2: {scale: "x", field: "to"}, y: {value: 0}, y2: {signal: "height"},
        fill: {scale: "zone", field: "state"}, stroke: {value: theme.ink}, strokeOpacity: {value: 0.35}, strokeDash: {value: [2, 2]},
      }}},
      {type: "rule", aria: false, encode: {update: {
        ...across, y: {scale: "y", value: 0}, stroke: {value: theme.ink}, strokeWidth: {value: 1},
      }}},
      {type: "group", clip: true, from: {facet: {name: "one", data: "curves", groupby: "name"}},
        encode: {update: {width: {signal: "width"}, height: {signal: "height"}}},
        marks: [{type: "line", from: {data: "one"}, aria: false, encode: {update: {
          x, y, stroke, strokeWidth: {value: 2.2}, strokeDash: {field: "dash"}, strokeJoin: {value: "round"},
        }}}]},
      {type: "symbol", from: {data: "marked"}, clip: true, aria: false, encode: {update: {
        x, y, stroke, shape: {scale: "shape", field: "name"}, size: {value: 42}, strokeWidth: {value: 1.6}, fill: {value: "transparent"},
      }}},
      {type: "text", from: {data: "zones"}, aria: false, encode: {update: {
        x: {signal: "(scale('x', datum.from) + scale('x', datum.to)) / 2"}, y: {value: 12}, align: {value: "center"},
        fontSize: {value: 12}, fill: {value: theme.ink},
        text: {signal: `scale('x', datum.to) - scale('x', datum.from) > 6.5 * length(datum.words) ? datum.words : ''`},
      }}},
      {type: "rule", aria: false, encode: {update: {
        x: {scale: "x", signal: "at"}, y: {value: 0}, y2: {signal: "height"}, stroke: {value: theme.ink}, strokeDash: {value: [3, 3]},
      }}},
      {type: "symbol", from: {data: "read"}, clip: true, aria: false, encode: {update: {
        x, y, fill: stroke, shape: {scale: "shape", field: "name"}, size: {value: 70}, stroke: {value: theme.ink},
      }}},
    ],
  };
}

const panels = KINDS.flatMap((kind) => QUANTITIES.map((quantity) => (
  {kind, quantity, place: document.getElementById(`${kind}-${quantity}`), chart: null}
)));
let hovered = null;  // the similarity under the pointer, while it is over a chart

async function makeCharts() {
  const options = {mode: "vega", renderer: "svg", actions: false, tooltip: false, hover: false, defaultStyle: false};
  await Promise.all(panels.map(async (panel) => {
    const former = panel.chart;
    panel.chart = await vegaEmbed(panel.place, chart(panel.kind, panel.quantity), options);
    former?.finalize();
  }));
  for (const swatch of all("svg[data-loss]")) {
    const name = swatch.dataset.loss;
    swatch.style.color = colour(name);
    swatch.querySelector("line").setAttribute("stroke-dasharray", look(DASHES, name).join(" "));
    swatch.querySelector("path").setAttribute("d", look(SHAPES, name));
  }
}

// From the lowest to the highest value of what is shown, 0 included, with some air.
function extent(values) {
  const low = Math.min(0, ...values), high = Math.max(0, ...values), air = 0.06 * (high - low) || 1;
  return {low: low - (low < 0 || high === 0 ? air : 0.02 * high), high: high + air};
}

function draw(curves) {
  const shaded = settings.show[0];
  const at = hovered ?? settings.at;
  return Promise.all(panels.map(({kind, quantity, place, chart: {view}}) => {
    const unit = (name) => settings.scale === "absolute" ? 1
      : Math.max(...curves[kind][name].map((point) => Math.abs(point[quantity]))) || 1;
    const units = Object.fromEntries(settings.show.map((name) => [name, unit(name)]));
    const scaled = (name, point) => ({name, similarity: point.similarity, [quantity]: point[quantity] / units[name]});
    const rows = settings.show.flatMap((name) => curves[kind][name].map((point, step) => (
      {...scaled(name, point), step, dash: look(DASHES, name)}
    )));
    const {low, high} = extent(rows.map((row) => row[quantity]));
    const marked = shaded ? zones(shaded, kind, curves[kind][shaded]).map((zone) => ({...zone, words: WORDS[zone.state]})) : [];
    const read = settings.show.map((name) => scaled(name, pointAt(name, kind, at)));
    return view.width(place.clientWidth - 68).signal("low", low).signal("high", high).signal("at", at)
      .signal("unit", settings.scale === "absolute" ? "" : " / largest")
      .data("zones", marked).data("curves", rows).data("read", read).runAsync();
  }));
}

// ---------------------------------------------------------------------------------------------- words and the tables

function formula(kind) {
  const letter = kind === "positive" ? "p" : "q", x = VARIABLE[kind];
  const terms = ["", ` ${x}`, ` ${x}²`].map((power, k) => [settings[letter + k], power]).filter(([value]) => value);
  const slopes = [1, 2].map((k) => [(kind === "positive" ? -k : k) * settings[letter + k], k === 1 ? "" : ` ${x}`])
    .filter(([value]) => value);
  const written = (parts) => parts.map(([value, power], k) => {
    const sign = value < 0 ? (k ? " − " : "−") : k ? " + " : "";
    return sign + Number(Math.abs(value).toPrecision(10)) + power;
  }).join("") || "0";
  const name = letter.toUpperCase();
  return `${name}(${x}) = ${written(terms)}; weight ${kind === "positive" ? "−" : ""}${name}′(${x}) = ${written(slopes)}`;
}

function sentence(name, kind, points) {
  const x = VARIABLE[kind];
  const parts = zones(name, kind, points).map(({state, from, to, lowest}) => {
    const range = `for ${x} from ${fixed(from)} to ${fixed(to)}`;
    if (state === "out") return `takes no part ${range}`;
    return state === "dead" ? `dead zone, weight 0, ${range}` : `wrong way, weight down to ${fixed(lowest)}, ${range}`;
  });
  return `${name}: ${parts.join("; ") || "weight above 0 everywhere"}.`;
}

function sentences(kind, curves) {
  const computed = settings.show.filter((name) => !(name in LIVE)), held = nearest(heldFor(kind));
  const note = `${computed.join(", ")}: drawn with the other pair held at ${fixed(held, 1)}, the nearest value there is.`;
  return [
    ...settings.show.map((name) => sentence(name, kind, curves[name])),
    ...(computed.length && held !== heldFor(kind) ? [note] : []),
  ];
}

function fillRows(part, rows) {
  const head = part.tagName === "THEAD";
  part.replaceChildren(...rows.map((texts) => {
    const row = document.createElement("tr");
    row.append(...texts.map((text, place) => {
      const cell = document.createElement(head || !place ? "th" : "td");
      if (cell.tagName === "TH") cell.scope = head ? "col" : "row";
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

function describe(curves) {
  const at = hovered ?? settings.at;
  for (const kind of KINDS) {
    document.getElementById(`${kind}-formula`).textContent = formula(kind);
    document.getElementById(`${kind}-zones`).replaceChildren(...sentences(kind, curves[kind]).map((words) => {
      const item = document.createElement("li");
      item.textContent = words;
      return item;
    }));
  }
  document.getElementById("reading-at").textContent = fixed(at, 2);
  fillRows(document.getElementById("reading"), settings.show.map((name) => {
    const [positive, negative] = KINDS.map((kind) => pointAt(name, kind, at));
    return [name, ...[positive.weight, positive.loss, negative.weight, negative.loss].map((value) => fixed(value, 6))];
  }));
  const [preset] = Object.entries(DATA.presets).find(([, changes]) => (
    Object.entries({...DATA.start, ...changes}).every(([name, value]) => ["show", "at", "scale"].includes(name) || settings[name] === value)
  )) ?? [];
  for (const button of all("[data-preset]")) {
    button.setAttribute("aria-pressed", button.dataset.preset === preset);
    if (button.dataset.preset === preset) document.getElementById("preset").textContent = button.dataset.words;
  }
  if (!preset) document.getElementById("preset").textContent = "Settings of your own; the address of this page holds them.";
  if (document.getElementById("numbers").open) fillNumbers(curves);
}

function fillNumbers(curves) {
  for (const kind of KINDS) {
    const table = document.getElementById(`${kind}-numbers`);
    fillRows(table.tHead, [["similarity", ...settings.show.flatMap((name) => [`${name}, weight`, `${name}, loss`])]]);
    const steps = DATA.similarities.map((_, step) => step).filter((step) => step % 5 === 0);
    fillRows(table.tBodies[0], steps.map((step) => [fixed(DATA.similarities[step], 2), ...settings.show.flatMap((name) => (
      [curves[kind][name][step].weight, curves[kind][name][step].loss].map((value) => fixed(value, 6))
    ))]));
  }
}

// ------------------------------------------------------------------------------------------------- keeping in step

function showControls() {
  for (const input of all("[data-setting]")) {
    const value = settings[input.dataset.setting];
    if (input !== document.activeElement || input.type !== "number") input.value = value;
  }
  for (const box of all("[data-show]")) box.checked = settings.show.includes(box.dataset.show);
}

let drawn = Promise.resolve();
function update({keepAddress = false} = {}) {
  const curves = Object.fromEntries(KINDS.map((kind) => (
    [kind, Object.fromEntries(settings.show.map((name) => [name, curve(name, kind)]))]
  )));
  showControls();
  describe(curves);
  drawn = draw(curves);
  if (!keepAddress) history.replaceState(null, "", `#${toFragment()}`);
  return drawn;
}

function change(changes) {
  accept(changes);
  return update();
}

fromFragment();
await makeCharts();

for (const input of all("[data-setting]")) {
  input.addEventListener("input", () => input.checkValidity() && change({[input.dataset.setting]: input.value}));
  input.addEventListener("change", () => { input.value = settings[input.dataset.setting]; });
}
for (const box of all("[data-show]")) {
  box.addEventListener("change", () => change({show: all("[data-show]:checked").map((checked) => checked.dataset.show)}));
}
for (const button of all("[data-preset]")) {
  const {show, at, scale, ...start} = DATA.start;
  button.addEventListener("click", () => change({...start, ...DATA.presets[button.dataset.preset]}));
}

const tooltip = document.getElementById("tooltip");
for (const {kind, quantity, place} of panels) {
  const under = (event) => {
    const inside = event.clientX - place.getBoundingClientRect().left - 56, width = place.clientWidth - 68;
    const step = Math.round(((inside / width) * 2 - 1) * 100);
    return Math.min(Math.max(step, -100), 99) / 100;
  };
  place.addEventListener("pointermove", (event) => {
    hovered = under(event);
    update({keepAddress: true});
    const lines = settings.show.map((name) => `${name}: ${fixed(pointAt(name, kind, hovered)[quantity], 6)}`);
    tooltip.textContent = [`${VARIABLE[kind]} = ${fixed(hovered, 2)}, ${quantity}`, ...lines].join("\n");
    tooltip.hidden = false;
    const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - tooltip.offsetWidth - 8);
    tooltip.style.translate = `${Math.max(left, 8)}px ${event.clientY - tooltip.offsetHeight - 14}px`;
  });
  place.addEventListener("pointerleave", () => {
    hovered = null;
    tooltip.hidden = true;
    update({keepAddress: true});
  });
  place.addEventListener("click", (event) => change({at: under(event)}));
}
document.getElementById("numbers").addEventListener("toggle", () => update({keepAddress: true}));
addEventListener("hashchange", () => { fromFragment(); update({keepAddress: true}); });
dark.addEventListener("change", () => makeCharts().then(() => update({keepAddress: true})));
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) update({keepAddress: true});
  width = innerWidth;
});

await update({keepAddress: true});

// For whoever wants the numbers: the state, the curves as computed, and as drawn.
window.explorer = {
  data: DATA, settings: () => structuredClone(settings), set: change, curve, zones, settled: () => drawn,
  drawn: (kind, quantity) => panels.find((panel) => panel.kind === kind && panel.quantity === quantity).chart.view.data("curves"),
};
