const KINDS = ["positive", "negative"], QUANTITIES = ["weight", "loss"];
const VARIABLE = {positive: "p", negative: "n"};
const HEIGHT = {weight: 220, loss: 130};
const WORDS = {out: "no part", dead: "dead zone", wrong: "wrong way"};
const element = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const NAMES = all("[data-show]").map((box) => box.dataset.show);
const fixed = (value, digits = 4) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");

// A loss is told by colour (--loss-0 to --loss-7, in page.css), by dashes and by markers; with 8, 7 and 5 of them, no two
// losses look the same.
const DASHES = [[1, 0], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2], [12, 4]];
const SHAPES = ["M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z", "M-.9-.9H.9V.9H-.9Z", "M0-1.1L1.1,.9H-1.1Z", "M0-1.2L1.2,0L0,1.2L-1.2,0Z",
  "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z"];
const LOOKS = Object.fromEntries(NAMES.map((name, place) => [
  name, {colour: `var(--loss-${place % 8})`, dash: DASHES[place % DASHES.length], shape: SHAPES[place % SHAPES.length]},
]));

// ------------------------------------------------------------------------------------------------------ the settings

const settings = structuredClone(DATA.start);

// Only what is a setting, and possible, is taken over.
function accept(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (Object.hasOwn(DATA.bounds, name)) {
      const [low, high] = DATA.bounds[name], number = typeof value === "string" && !value.trim() ? NaN : Number(value);
      if (number >= low && number <= high) settings[name] = number;
    } else if (Object.hasOwn(DATA.choices, name)) {
      if (DATA.choices[name].includes(value)) settings[name] = value;
    } else if (name === "show") {
      const known = NAMES.filter((loss) => value.includes(loss));
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

const curveAt = (name, kind) => (similarity) => pointAt(name, kind, settings, similarity);
const curve = (name, kind) => DATA.similarities.map(curveAt(name, kind));

// -------------------------------------------------------------------------------------------------------- the charts

function chart(kind, quantity) {
  const [x, y, stroke, shape] = [{scale: "x", field: "similarity"}, {scale: "y", field: quantity}, {field: "colour"}, {field: "shape"}];
  const ink = "var(--ink)", whole = {y: {value: 0}, y2: {signal: "height"}};
  const mark = (type, update, more = {}) => ({type, aria: false, ...more, encode: {update}});
  const axis = (scale, title, more) => ({scale, title, grid: true, ...more});
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
    ],
    axes: [
      axis("x", `similarity ${VARIABLE[kind]} of the ${kind} pair`, {orient: "bottom", tickCount: 5}),
      axis("y", {signal: `"${quantity}" + unit`}, {orient: "left", tickCount: quantity === "weight" ? 6 : 4, titleX: -46, format: "~r"}),
    ],
    config: {
      axis: {labelColor: ink, titleColor: ink, gridColor: "var(--grid)", domainColor: ink, tickColor: ink,
        labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal", aria: false},
      text: {font: "system-ui, sans-serif"},
    },
    marks: [
      mark("rect", {
        ...whole, x: {scale: "x", field: "from"}, x2: {scale: "x", field: "to"}, fill: {signal: "'var(--' + datum.state + ')'"},
        stroke: {value: ink}, strokeOpacity: {value: 0.35}, strokeDash: {value: [2, 2]},
      }, {from: {data: "zones"}, clip: true}),
      mark("rule", {x: {value: 0}, x2: {signal: "width"}, y: {scale: "y", value: 0}, stroke: {value: ink}, strokeWidth: {value: 1}}),
      {type: "group", clip: true, from: {facet: {name: "one", data: "curves", groupby: "name"}},
        encode: {update: {width: {signal: "width"}, height: {signal: "height"}}},
        marks: [mark("line", {
          x, y, stroke, strokeWidth: {value: 2.2}, strokeDash: {field: "dash"}, strokeJoin: {value: "round"},
        }, {from: {data: "one"}})]},
      mark("symbol", {
        x, y, stroke, shape, size: {value: 42}, strokeWidth: {value: 1.6}, fill: {value: "transparent"},
      }, {from: {data: "marked"}, clip: true}),
      mark("text", {
        x: {signal: "(scale('x', datum.from) + scale('x', datum.to)) / 2"}, y: {value: 12}, align: {value: "center"},
        fontSize: {value: 12}, fill: {value: ink},
        text: {signal: "scale('x', datum.to) - scale('x', datum.from) > 6.5 * length(datum.words) ? datum.words : ''"},
      }, {from: {data: "zones"}}),
      mark("rule", {...whole, x: {scale: "x", signal: "at"}, stroke: {value: ink}, strokeDash: {value: [3, 3]}}),
      mark("symbol", {x, y, shape, fill: stroke, size: {value: 70}, stroke: {value: ink}}, {from: {data: "read"}, clip: true}),
    ],
  };
}

// From the lowest to the highest value of what is shown, 0 included, with some air.
function extent(values) {
  const low = Math.min(0, ...values), high = Math.max(0, ...values), air = 0.06 * (high - low) || 1;
  return {low: low - (low < 0 || high === 0 ? air : 0.02 * high), high: high + air};
}

function draw(curves, at) {
  const shaded = settings.show[0], absolute = settings.scale === "absolute";
  return Promise.all(panels.map(({kind, quantity, place, view}) => {
    const largest = (name) => Math.max(...curves[kind][name].map((point) => Math.abs(point[quantity]))) || 1;
    const units = Object.fromEntries(settings.show.map((name) => [name, absolute ? 1 : largest(name)]));
    const shown = (name, {similarity, ...point}) => ({name, similarity, [quantity]: point[quantity] / units[name], ...LOOKS[name]});
    const rows = settings.show.flatMap((name) => curves[kind][name].map((point, step) => ({...shown(name, point), step})));
    const read = settings.show.map((name) => shown(name, curveAt(name, kind)(at)));
    const marked = shaded ? stretches(curves[kind][shaded], curveAt(shaded, kind)) : [];
    const {low, high} = extent(rows.map((row) => row[quantity]));
    return view.width(place.clientWidth - 68).signal("low", low).signal("high", high).signal("at", at)
      .signal("unit", absolute ? "" : " / largest").data("curves", rows).data("read", read)
      .data("zones", marked.map((zone) => ({...zone, words: WORDS[zone.state]}))).runAsync();
  }));
}

// ---------------------------------------------------------------------------------------------- words and the tables

function formula(kind) {
  const letter = kind === "positive" ? "p" : "q", x = VARIABLE[kind], name = letter.toUpperCase();
  const [zero, one, two] = [0, 1, 2].map((power) => settings[letter + power]), sign = kind === "positive" ? -1 : 1;
  const written = (parts) => parts.filter(([value]) => value).map(([value, power], k) => (
    (value < 0 ? (k ? " − " : "−") : k ? " + " : "") + Number(Math.abs(value).toPrecision(10)) + power
  )).join("") || "0";
  const [terms, slopes] = [[[zero, ""], [one, ` ${x}`], [two, ` ${x}²`]], [[sign * one, ""], [sign * 2 * two, ` ${x}`]]];
  return `${name}(${x}) = ${written(terms)}; weight ${sign < 0 ? "−" : ""}${name}′(${x}) = ${written(slopes)}`;
}

function sentence(name, kind, points) {
  const parts = stretches(points, curveAt(name, kind)).map(({state, from, to, lowest}) => {
    const range = `for ${VARIABLE[kind]} from ${fixed(from)} to ${fixed(to)}`;
    if (state === "out") return `takes no part ${range}`;
    return state === "dead" ? `dead zone, weight 0, ${range}` : `wrong way, weight down to ${fixed(lowest)}, ${range}`;
  });
  return `${name}: ${parts.join("; ") || "weight above 0 everywhere"}.`;
}

function filled(tag, text, attributes = {}) {
  return Object.assign(document.createElement(tag), {textContent: text, ...attributes});
}

function fillRows(part, rows) {
  const head = part.tagName === "THEAD";
  part.replaceChildren(...rows.map((texts) => {
    const row = document.createElement("tr");
    row.append(...texts.map((text, place) => (
      head || !place ? filled("th", text, {scope: head ? "col" : "row"}) : filled("td", text)
    )));
    return row;
  }));
}

function describe(curves, at) {
  for (const kind of KINDS) {
    element(`${kind}-formula`).textContent = formula(kind);
    element(`${kind}-zones`).replaceChildren(...settings.show.map((name) => filled("li", sentence(name, kind, curves[kind][name]))));
  }
  element("reading-at").textContent = fixed(at, 2);
  fillRows(element("reading"), settings.show.map((name) => {
    const values = KINDS.map((kind) => curveAt(name, kind)(at)).flatMap(({weight, loss}) => [weight, loss]);
    return [name, ...values.map((value) => fixed(value, 6))];
  }));
  const [preset] = Object.entries(DATA.presets).find(([, changes]) => (
    Object.entries({...DATA.start, ...changes}).every(([name, value]) => ["show", "at", "scale"].includes(name) || settings[name] === value)
  )) ?? [];
  const buttons = all("[data-preset]"), pressed = buttons.find((button) => button.dataset.preset === preset);
  buttons.forEach((button) => button.setAttribute("aria-pressed", button === pressed));
  element("preset").textContent = pressed?.dataset.words ?? "Settings of your own; the address of this page holds them.";
  if (element("numbers").open) KINDS.forEach((kind) => fillNumbers(element(`${kind}-numbers`), curves[kind]));
}

function fillNumbers(table, curves) {
  fillRows(table.tHead, [["similarity", ...settings.show.flatMap((name) => [`${name}, weight`, `${name}, loss`])]]);
  const steps = [...DATA.similarities.keys()].filter((step) => step % 5 === 0);
  fillRows(table.tBodies[0], steps.map((step) => [fixed(DATA.similarities[step], 2), ...settings.show.flatMap((name) => (
    [curves[name][step].weight, curves[name][step].loss].map((value) => fixed(value, 6))
  ))]));
}

// ------------------------------------------------------------------------------------------------- keeping in step

let hovered = null;  // the similarity under the pointer, while it is over a chart
let drawn = Promise.resolve();
let curves = {};

function update() {
  for (const input of all("[data-setting]")) {
    if (input !== document.activeElement || input.type !== "number") input.value = settings[input.dataset.setting];
  }
  for (const box of all("[data-show]")) box.checked = settings.show.includes(box.dataset.show);
  const {at, scale, ...moved} = settings, drawnFor = JSON.stringify(moved);
  if (drawnFor !== curves.drawnFor) {  // and not only the pointer
    curves = {drawnFor, ...Object.fromEntries(KINDS.map((kind) => (
      [kind, Object.fromEntries(settings.show.map((name) => [name, curve(name, kind)]))]
    )))};
  }
  describe(curves, hovered ?? settings.at);
  drawn = draw(curves, hovered ?? settings.at);
}

function change(changes) {
  accept(changes);
  update();
  history.replaceState(null, "", `#${toFragment()}`);
}

fromFragment();
for (const swatch of all("svg[data-loss]")) {
  const {colour, dash, shape} = LOOKS[swatch.dataset.loss];
  swatch.style.color = colour;
  swatch.querySelector("line").setAttribute("stroke-dasharray", dash.join(" "));
  swatch.querySelector("path").setAttribute("d", shape);
}
const panels = await Promise.all(KINDS.flatMap((kind) => QUANTITIES.map(async (quantity) => {
  const options = {mode: "vega", renderer: "svg", actions: false, tooltip: false, hover: false, defaultStyle: false};
  const place = element(`${kind}-${quantity}`), {view} = await vegaEmbed(place, chart(kind, quantity), options);
  return {kind, quantity, place, view};
})));

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

const tooltip = element("tooltip");
for (const {kind, quantity, place} of panels) {
  const under = (event) => {
    const inside = event.clientX - place.getBoundingClientRect().left - 56, width = place.clientWidth - 68;
    const step = Math.round(((inside / width) * 2 - 1) * 100);
    return Math.min(Math.max(step, -100), 99) / 100;
  };
  place.addEventListener("pointermove", (event) => {
    hovered = under(event);
    update();
    const lines = settings.show.map((name) => `${name}: ${fixed(curveAt(name, kind)(hovered)[quantity], 6)}`);
    tooltip.textContent = [`${VARIABLE[kind]} = ${fixed(hovered, 2)}, ${quantity}`, ...lines].join("\n");
    tooltip.hidden = false;
    const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - tooltip.offsetWidth - 8);
    tooltip.style.translate = `${Math.max(left, 8)}px ${event.clientY - tooltip.offsetHeight - 14}px`;
  });
  place.addEventListener("pointerleave", () => {
    hovered = null;
    tooltip.hidden = true;
    update();
  });
  place.addEventListener("click", (event) => change({at: under(event)}));
}
element("numbers").addEventListener("toggle", update);
addEventListener("hashchange", () => { fromFragment(); update(); });
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) update();
  width = innerWidth;
});
update();

// For whoever wants the numbers: the state, the curves as computed, and as drawn.
window.explorer = {
  data: DATA, settings: () => structuredClone(settings), set: change, curve, settled: () => drawn,
  drawn: (kind, quantity) => panels.find((panel) => panel.kind === kind && panel.quantity === quantity).view.data("curves"),
};
