// The page: what is shown is in the address behind #, so that a link keeps it; everything follows from `state`.

import { Grid, Pixels, Projection, drawCoasts, drawLegend, drawLines, drawPoint, drawTracks, refine, roundEdges, roundStep, shade, spread } from "./map.js";
import { drawMeteogram } from "./meteogram.js";

const $ = (id) => document.getElementById(id);
const HOUR = 3600e3;
const DEFAULTS = {
  field: "t2m", level: "", first: "0/mean", second: "", member: "0", threshold: "", below: "0", lines: "msl",
  projection: "world", init: "", hours: "", storms: "", lat: "0", lon: "0", zoom: "1", place: "", large: "",
};
const state = { ...DEFAULTS };
const fields = new Map(); // address of a map -> promise of it; the latest stay
const MOST_FIELDS = 160;
const early = new Map(); // address of a map that is read ahead and not yet there -> what stops it
const scales = new Map(); // what is shown -> lowest and highest value of its colours
const panels = [0, 1].map((index) => {
  const figure = $(`figure-${index}`), [map, legend] = figure.querySelectorAll("canvas");
  return { figure, map, legend, caption: figure.querySelector("figcaption"), said: figure.querySelector(".said"), shown: null };
});
let about, tracks = null, series = null, seriesAsked = "", span = null, turn = 0, timer = 0, reading = new AbortController();

// ---- what there is ----

const forecast = () => about.sources[Number(state.first.split("/")[0])] ?? about.sources[0];
const timed = () => (forecast().forecast ? forecast() : about.sources[0]);
const moment = (text) => Date.parse(`${text}Z`);
const valid = () => moment(state.init) + Number(state.hours) * HOUR;
const minutes = (time) => new Date(time).toISOString().slice(0, 16);
const levelsOf = (name) => forecast().quantities[name] ?? [];
const describeTime = (time) => new Date(time).toLocaleString("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", timeZone: "UTC" }).replace(/, (\d\d)$/, " $1 UTC");

async function ask(words, { binary = false, signal } = {}) {
  let answer;
  try {
    answer = await fetch(words, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The viewer does not answer: run `ladcast view` again, and open the address that it prints.");
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `${answer.status} ${answer.statusText}`);
  return binary ? { values: new Float32Array(await answer.arrayBuffer()), ...JSON.parse(answer.headers.get("X-About")) } : answer.json();
}

/** Returns the address of a map of a panel at a time. */
function address(choice, time, quantity = state.field, level = state.level) {
  const [source, kind, other] = choice.split("/");
  const words = new URLSearchParams({ source, kind, quantity, valid: minutes(time), init: state.init });
  if ((about.sources[source].quantities[quantity] ?? []).length) words.set("level", level);
  if (kind === "member") words.set("member", state.member);
  if (kind === "probability") { words.set("threshold", state.threshold || "0"); words.set("below", state.below); }
  if (other) words.set("other", other);
  return `field?${words}`;
}

/** Reads a map once; those read last are kept. */
function read(words) {
  const held = fields.get(words);
  early.delete(words); // what is wanted now is not given up
  if (held) {
    fields.delete(words);
    fields.set(words, held);
    return held;
  }
  return keep(words, ask(words, { binary: true }));
}

/** Reads a map that may be wanted next, unless something else is wanted before. */
function readEarly(words) {
  if (fields.has(words)) return;
  const stop = new AbortController();
  early.set(words, stop);
  keep(words, ask(`${words}&ahead=1`, { binary: true, signal: stop.signal })).then(() => early.delete(words), () => early.delete(words));
}

function giveUpEarly() {
  for (const [words, stop] of early) {
    fields.delete(words);
    stop.abort();
  }
  early.clear();
}

function keep(words, made) {
  fields.set(words, made);
  made.catch(() => fields.get(words) === made && fields.delete(words));
  if (fields.size > MOST_FIELDS) fields.delete(fields.keys().next().value);
  return made;
}

const grids = new Map();
const gridOf = (source) => {
  if (!grids.has(source)) grids.set(source, new Grid(about.sources[source].latitude, about.sources[source].longitude));
  return grids.get(source);
};

// ---- what is shown ----

function choices() {
  return about.sources.flatMap((source, index) => {
    const levels = source.anomalies[state.field], found = levels && (!levels.length || levels.includes(Number(state.level)));
    const all = !source.forecast ? ["mean"] : source.members.length > 1 ? ["mean", "spread", "member", "minimum", "maximum", "probability"] : ["member"];
    const options = all.map((kind) => [`${index}/${kind}`, source.forecast ? kind : "analysis"]);
    if (found) options.push([`${index}/anomaly`, "anomaly from climatology"]);
    about.sources.forEach((other, number) => {
      if (number !== index && source.forecast && (number < index || !other.forecast) && other.quantities[state.field]) options.push([`${index}/difference/${number}`, `mean minus ${other.name}`]);
    });
    return options.map(([value, text]) => [value, text, source.name]);
  });
}

function fill(select, options, value) {
  const grouped = about.sources.length > 1 && options.some((option) => option[2]);
  select.replaceChildren();
  let group = null;
  for (const [key, text, name] of options) {
    if (grouped && name && group?.label !== name) {
      group = document.createElement("optgroup");
      group.label = name;
      select.append(group);
    }
    (grouped && name ? group : select).append(new Option(text, key));
  }
  select.value = value;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
  return select.value;
}

/** Brings the state to what there is, and the controls to the state. */
function settle() {
  const source = forecast();
  const names = Object.keys(about.quantities).filter((name) => source.quantities[name]);
  state.field = fill($("quantity"), names.map((name) => [name, about.quantities[name].title]), state.field);
  const levels = levelsOf(state.field).map(String);
  if (levels.length) state.level = fill($("level"), levels.map((level) => [level, `${level} hPa`]), levels.includes(state.level) ? state.level : levels.includes("500") ? "500" : levels[0]);
  $("level-label").hidden = !levels.length;
  const all = choices();
  state.first = fill($("first"), all, state.first);
  state.second = fill($("second"), [["", "none"], ...all], state.second);
  state.init = fill($("init"), timed().times.map((time) => [time, describeTime(moment(time))]), state.init);
  $("init-label").hidden = timed().times.length < 2;
  const hours = timed().lead_hours.map(String);
  state.hours = hours.includes(state.hours) ? state.hours : hours.find((hour) => Number(hour) > 0) ?? hours[0]; // not the analysis, unless it is asked for
  $("lead").max = hours.length - 1;
  $("lead").value = hours.indexOf(state.hours);
  state.member = fill($("member"), timed().members.map((member) => [String(member), String(member)]), state.member);
  const kinds = [state.first, state.second].map((choice) => choice.split("/")[1]);
  $("member-label").hidden = !kinds.includes("member") || timed().members.length < 2;
  $("threshold-label").hidden = !kinds.includes("probability");
  const lines = ["msl", ...(source.quantities.z ?? []).filter((level) => [500, 850].includes(level)).map((level) => `z/${level}`)].filter((name) => source.quantities[name.split("/")[0]]);
  state.lines = fill($("lines"), [["", "none"], ...lines.map((name) => [name, name === "msl" ? "sea level pressure" : `height ${name.split("/")[1]} hPa`])], state.lines);
  $("threshold").value = state.threshold;
  $("threshold-units").textContent = about.quantities[state.field].units;
  for (const name of ["below", "projection", "storms"]) {
    $(name).value = state[name];
    if ($(name).selectedIndex < 0) $(name).value = DEFAULTS[name];
    state[name] = $(name).value;
  }
  document.body.classList.toggle("large", state.large === "1");
  $("maps").classList.toggle("two", Boolean(state.second));
  panels[1].figure.hidden = !state.second;
  $("heading").textContent = `Valid ${describeTime(valid())}`;
  $("when").textContent = `+${state.hours} h`;
  const names_ = about.sources.map((one) => one.name).join(", ");
  $("about").textContent = `${timed().about || names_} | from ${describeTime(moment(state.init))} | ${timed().members.length} members${timed().unreal ? " | model weather, not the real atmosphere" : ""}`;
  document.title = `${state.field}${levels.length ? state.level : ""} +${state.hours} h | ladcast view`;
}

function remember() {
  const kept = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
}

function recall() {
  Object.assign(state, DEFAULTS);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) if (name in DEFAULTS) state[name] = value;
  for (const [name, low, high] of [["lat", -90, 90], ["lon", -180, 180], ["zoom", 1, 40]]) {
    const number = Number(state[name]);
    state[name] = String(number >= low && number <= high ? number : DEFAULTS[name]);
  }
}

/** Changes the state, and shows it. */
function show(changes = {}) {
  if (changes.field && changes.field !== state.field) state.threshold = ""; // it has other units
  Object.assign(state, changes);
  settle();
  remember();
  if (seriesAsked !== seriesKey()) readSeries();
  return refresh();
}

// ---- maps ----

const scaleKey = (choice) => {
  const [, kind] = choice.split("/"), alike = { mean: "value", member: "value", minimum: "value", maximum: "value" };
  return `${state.field}/${state.level}/${alike[kind] ?? kind}`;
};

function bandsOf(choice, { values, least: noise = 0 }) {
  const kind = choice.split("/")[1], quantity = about.quantities[state.field], { palettes } = about;
  if (state.storms === "strikes") return { edges: [5, 10, 20, 30, 40, 50, 60, 70, 80, 90], palette: palettes.sequential };
  if (kind === "probability") return { edges: [5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95], palette: palettes.sequential };
  const even = ["anomaly", "difference"].includes(kind) || (quantity.palette === "diverging" && kind !== "spread");
  if (quantity.edges.length && kind !== "spread" && !even) return { edges: quantity.edges, palette: palettes.sequential };
  const sorted = values.filter((value) => !Number.isNaN(value)).sort(), at = (share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  let [low, high] = scales.get(scaleKey(choice)) ?? [Infinity, -Infinity];
  const [least, most] = [at(0.005), at(0.995)], width = high - low;
  if (!(least >= low - 0.15 * width && most <= high + 0.15 * width)) { // the colours stay from time to time, unless they miss much
    [low, high] = [Math.min(low, least), Math.max(high, most)];
    scales.set(scaleKey(choice), [low, high]);
  }
  const positive = kind === "spread" || (quantity.palette === "sequential" && !even);
  const top = noise ? Math.max(high, noise) : high; // what differs by less is that of 32-bit numbers, and white
  const edges = positive ? roundEdges(0, top, false).slice(1) : roundEdges(low, top, even);
  return { edges, palette: palettes[even ? "diverging" : kind === "spread" ? "sequential" : quantity.palette] };
}

function say(panel, text, isError = false) {
  panel.said.textContent = text;
  panel.said.classList.toggle("error", isError);
}

/** Returns the units of a map: shares are in per cent, differences of temperatures in kelvin. */
function unitsOf(choice) {
  const kind = choice.split("/")[1], { units } = about.quantities[state.field];
  if (state.storms === "strikes" || kind === "probability") return "%";
  return units === "°C" && ["spread", "anomaly", "difference"].includes(kind) ? "K" : units;
}

function captionOf(choice, field) {
  const [source, kind, other] = choice.split("/"), quantity = about.quantities[state.field];
  const where = levelsOf(state.field).length ? ` at ${state.level} hPa` : "";
  if (state.storms === "strikes") return ["Cyclones", about.strikes];
  const words = {
    member: `member ${state.member}`,
    probability: `probability ${state.below === "1" ? "below" : "above"} ${Number(state.threshold)} ${quantity.units}`,
    difference: `mean minus ${about.sources[other]?.name}`,
  };
  const what = about.sources[source].forecast ? words[kind] ?? about.kinds[kind] : kind === "anomaly" ? "analysis minus climatology" : "analysis";
  const from = about.sources.filter((one) => one.forecast).length > 1 && about.sources[source].forecast ? `${about.sources[source].name}, +${field.lead_hours} h` : "";
  return [`${quantity.title}${where}`, [what, from].filter(Boolean).join(", ")];
}

/** Reads what a panel shows at a time: the field, and the lines above it. */
async function load(choice, time) {
  const source = Number(choice.split("/")[0]);
  if (state.storms === "strikes") {
    const strikes = await read(`strikes?${new URLSearchParams({ source: about.sources[source].forecast ? source : 0, init: state.init })}`);
    return { choice, field: strikes, grid: new Grid(strikes.latitude, strikes.longitude), lines: null };
  }
  const [quantity, level] = state.lines.split("/");
  const there = quantity && about.sources[source].quantities[quantity] && (!level || about.sources[source].quantities[quantity].includes(Number(level)));
  const mean = choice.split("/")[1] === "member" ? choice : `${source}/mean`;
  const [field, lines] = await Promise.all([
    read(address(choice, time)),
    there ? read(address(mean, time, quantity, level ?? "")).catch(() => null) : null,
  ]);
  return { choice, field, grid: gridOf(source), lines: lines && { values: lines.values, step: { msl: 5, "z/500": 8, "z/850": 4 }[state.lines] } };
}

/** Takes a round value of the upper tenth of the mean as the threshold of a probability, if none is chosen for this field. */
async function chooseThreshold(shown, time) {
  const choice = shown.find((one) => one.split("/")[1] === "probability");
  if (!choice || state.threshold !== "") return;
  const mine = turn, found = await read(address(`${choice.split("/")[0]}/mean`, time)).catch(() => null);
  if (!found || mine !== turn) return; // why it cannot be read, the map itself says
  const sorted = found.values.filter((value) => !Number.isNaN(value)).sort(), value = sorted[Math.floor(sorted.length * 0.9)];
  const round = roundStep(Math.abs(sorted.at(-1) - sorted[0]), 20);
  state.threshold = $("threshold").value = String(Number((Math.round(value / round) * round).toPrecision(6)));
  remember();
}

async function refresh() {
  const mine = ++turn, time = valid(), shown = [state.first, state.second].filter(Boolean);
  document.body.dataset.state = "busy";
  const late = setTimeout(() => shown.forEach((_, index) => say(panels[index], state.storms === "strikes" && !tracks ? "Looking for cyclones in all members ..." : "Reading ...")), 250);
  await chooseThreshold(shown, time);
  if (mine !== turn) return clearTimeout(late);
  const loading = shown.map((choice) => load(choice, time));
  giveUpEarly();
  const results = await Promise.allSettled(loading);
  clearTimeout(late);
  if (mine !== turn) return;
  let wrong = false;
  results.forEach((result, index) => {
    const panel = panels[index];
    if (result.status === "fulfilled") {
      panel.shown = result.value;
      say(panel, "");
      draw(panel);
    } else {
      wrong = true;
      panel.shown = null;
      panel.map.getContext("2d").clearRect(0, 0, panel.map.width, panel.map.height);
      panel.caption.textContent = "";
      say(panel, result.reason.message, true);
    }
  });
  drawSeries();
  if (state.storms && !wrong && !(await findTracks()) && mine === turn) wrong = true;
  if (mine !== turn) return;
  document.body.dataset.state = wrong ? "error" : "ready";
  if (!wrong) readAhead(shown);
}

/** Reads the frames that may be wanted next. */
function readAhead(shown) {
  if (state.storms === "strikes") return;
  const hours = timed().lead_hours, at = hours.map(String).indexOf(state.hours);
  for (const index of [at + 1, at - 1, at + 2]) {
    if (index < 0 || index >= hours.length) continue;
    const time = moment(state.init) + hours[index] * HOUR;
    for (const choice of shown) readEarly(address(choice, time));
    const [quantity, level] = state.lines.split("/");
    if (quantity && forecast().quantities[quantity]) readEarly(address(`${state.first.split("/")[0]}/mean`, time, quantity, level ?? ""));
  }
}

function projectionOf(panel, scale = 1) {
  const unit = Math.min(window.devicePixelRatio || 1, 2) * scale;
  const width = panel.figure.clientWidth, ratio = { world: 0.487, flat: 0.5, globe: 0.62 }[state.projection];
  const around = $("maps").offsetTop + $("clock").offsetHeight + panel.legend.offsetHeight + panel.caption.offsetHeight + 66;
  const room = Math.max(window.innerHeight - around, 260);
  const height = Math.min(width * ratio, room);
  panel.map.style.height = `${height}px`;
  const view = { lon: Number(state.lon), lat: Number(state.lat), zoom: Number(state.zoom) };
  const letters = document.body.classList.contains("large") ? 1.5 : 1;
  return [new Projection(state.projection, view, Math.round(width * unit), Math.round(height * unit)), unit, unit * letters];
}

function draw(panel, scale = 1) {
  if (!panel.shown || panel.figure.hidden) return;
  const { choice, field, grid, lines } = panel.shown, [projection, unit, pen] = projectionOf(panel, scale), { width, height } = projection;
  const fine = (panel.shown.fine ??= refine(grid, field.values));
  const key = [state.projection, state.lat, state.lon, state.zoom, width, height, fine.grid.rows, fine.grid.columns, fine.grid.latitude[0], fine.grid.longitude[0]].join();
  if (panel.key !== key) Object.assign(panel, { key, pixels: new Pixels(projection, fine.grid) });
  const { edges, palette } = bandsOf(choice, field), colours = spread(palette, edges.length + 1);
  Object.assign(panel.map, { width, height });
  const context = panel.map.getContext("2d"), image = context.createImageData(width, height);
  shade(image, panel.pixels, fine.grid, fine.values, edges, colours);
  context.putImageData(image, 0, 0);
  drawCoasts(context, projection, about.coast, pen);
  if (lines && scale === 1) {
    const smooth = (panel.shown.smooth ??= refine(grid, lines.values));
    const dense = projection.radius / unit < (state.projection === "globe" ? 200 : 150);
    drawLines(context, projection, smooth.grid, smooth.values, lines.step * (dense ? 2 : 1), pen);
  }
  if (tracks?.key === tracksKey() && state.storms) drawTracks(context, projection, tracks.lines, (valid() - moment(state.init)) / HOUR, pen);
  if (state.place) drawPoint(context, projection, ...state.place.split(",").map(Number).reverse(), pen);
  const [title, rest] = captionOf(choice, field), small = document.createElement("small");
  small.textContent = rest;
  panel.caption.replaceChildren(`${title} `, small);
  panel.map.setAttribute("aria-label", `Map: ${title}, ${rest}, valid ${describeTime(valid())}`);
  drawLegend(panel.legend, edges, colours, unitsOf(choice));
}

const drawAll = (scale) => panels.forEach((panel) => draw(panel, scale));

const tracksKey = () => `${about.sources.indexOf(timed())}/${state.init}`;

/** Draws the tracks when they are found, and says whether that went well. */
async function findTracks() {
  const key = tracksKey();
  if (tracks?.key !== key) {
    tracks = { key, lines: [], found: ask(`tracks?${new URLSearchParams({ source: key.split("/")[0], init: state.init })}`) };
  }
  const mine = tracks;
  try {
    if (!mine.lines.length) say(panels[0], "Looking for cyclones in all members ...");
    mine.lines = (await mine.found).tracks;
    if (key !== tracksKey() || !state.storms) return true;
    drawAll();
    say(panels[0], mine.lines.length ? "" : "There are no cyclones in this forecast.");
    return true;
  } catch (error) {
    if (tracks === mine) tracks = null;
    say(panels[0], error.message, true);
    return false;
  }
}

// ---- the meteogram of a point ----

const seriesKey = () => (state.place ? `${tracksKey()}/${state.place}` : "");

async function readSeries() {
  seriesAsked = seriesKey();
  reading.abort();
  reading = new AbortController();
  series = null;
  $("place").hidden = !state.place;
  $("hint").hidden = Boolean(state.place);
  if (!state.place) return;
  const [latitude, longitude] = state.place.split(","), source = about.sources.indexOf(timed());
  const title = $("place").querySelector("h2");
  $("place").dataset.state = "busy";
  title.textContent = "Reading the members ...";
  try {
    const answer = await fetch(`series?${new URLSearchParams({ source, init: state.init, latitude, longitude })}`, { signal: reading.signal });
    if (!answer.ok) throw new Error((await answer.json()).error);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const times = timed().lead_hours.map((hours) => moment(state.init) + hours * HOUR);
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) break;
      const texts = (rest + value).split("\n");
      rest = texts.pop();
      for (const line of texts.map((text) => JSON.parse(text))) {
        if (line.quantities) series = { ...line, times, lines: [] };
        else series.lines.push({ ...line, time: moment(line.valid) });
      }
      drawSeries();
    }
  } catch (error) {
    if (error.name !== "AbortError") title.textContent = error.message;
  }
}

const degrees = (value, [plus, minus]) => `${Math.abs(value).toFixed(1)}°${value < 0 ? minus : plus}`;

function drawSeries() {
  if (!series || !state.place) return;
  const { latitude, longitude, lines, count } = series, east = ((longitude + 180) % 360) - 180;
  $("place").querySelector("h2").textContent = `${timed().name} at ${degrees(latitude, "NS")} ${degrees(east, "EW")}, the nearest grid point${lines.length < count ? ` (${lines.length} of ${count} times)` : ""}`;
  span = drawMeteogram($("place").querySelector("canvas"), series, about.quantities, valid());
  const hasTruth = lines.some((line) => Object.keys(line.truth).length), few = timed().members.length < 5;
  $("place").querySelector(".key").textContent = `${few ? "Blue: the members." : "Box: the middle half of the members; line: the median; whiskers: all members."}${hasTruth ? " Orange: the analysis." : ""} Click a time to go there.`;
  $("place").dataset.state = lines.length < count ? "busy" : "ready";
}

// ---- what people do ----

function step(by) {
  const hours = timed().lead_hours.map(String), at = hours.indexOf(state.hours) + by;
  return show({ hours: hours[Math.min(Math.max(at, 0), hours.length - 1)] });
}

function stepDay(sign) {
  const hours = timed().lead_hours, wanted = Number(state.hours) + sign * 24;
  const nearest = hours.reduce((best, hour) => (Math.abs(hour - wanted) < Math.abs(best - wanted) ? hour : best));
  return show({ hours: String(nearest) });
}

const cycle = (list, now, by) => list[(list.indexOf(now) + by + list.length) % list.length];
const stepIn = (select, name, by) => show({ [name]: cycle([...select.options].map((option) => option.value), state[name], by) });
const firstKind = (kind) => {
  const wanted = `${state.first.split("/")[0]}/${kind}`;
  if (choices().some(([value]) => value === wanted)) show({ first: wanted });
};

function play() {
  clearTimeout(timer);
  timer = timer ? 0 : -1;
  $("play").textContent = timer ? "Stop" : "Play";
  const next = async () => {
    if (!timer) return;
    const hours = timed().lead_hours.map(String), at = hours.indexOf(state.hours);
    const began = performance.now();
    await show({ hours: hours[(at + 1) % hours.length] });
    if (timer) timer = setTimeout(next, Math.max(30, 350 - (performance.now() - began)));
  };
  if (timer) next();
}

function zoom(by, x = 0, y = 0) {
  const next = Math.min(Math.max(Number(state.zoom) * by, 1), 40), share = 1 - Number(state.zoom) / next;
  const [projection] = projectionOf(panels[0]), unit = projection.width / panels[0].figure.clientWidth;
  const towards = x || y ? projection.inverse(y * unit)(x * unit) : null;
  if (towards && share > 0) {
    const away = ((towards[0] - Number(state.lon) + 540) % 360) - 180;
    move(Number(state.lon) + away * share, Number(state.lat) + (towards[1] - Number(state.lat)) * share);
  }
  state.zoom = String(Number(next.toFixed(3)));
  if (next === 1 && state.projection !== "globe") state.lat = "0";
  later();
}

function move(lon, lat) {
  state.lon = String(Number((((((lon + 180) % 360) + 360) % 360) - 180).toFixed(2)));
  const free = state.projection === "globe" || Number(state.zoom) > 1;
  state.lat = String(free ? Number(Math.min(Math.max(lat, -89), 89).toFixed(2)) : 0);
}

let settling = 0;
/** Draws at half the resolution while the map moves, and whole when it rests. */
function later() {
  drawAll(0.5);
  clearTimeout(settling);
  settling = setTimeout(() => { remember(); drawAll(); }, 120);
}

function listenToMap(panel) {
  const pointers = new Map();
  let began = null;
  const position = (event) => {
    const box = panel.map.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const locate = ([x, y]) => {
    const [projection, unit] = projectionOf(panel);
    return projection.inverse(y * unit)(x * unit);
  };
  panel.map.addEventListener("pointerdown", (event) => {
    panel.map.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, position(event));
    began = { at: position(event), moved: false };
  });
  panel.map.addEventListener("pointermove", (event) => {
    const now = position(event), before = pointers.get(event.pointerId);
    if (!before) return tell(panel, locate(now));
    pointers.set(event.pointerId, now);
    if (!began.moved && Math.hypot(now[0] - began.at[0], now[1] - began.at[1]) < 6) return;
    began.moved = true;
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1], far = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      return zoom(far(now) / Math.max(far(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }
    const [projection, unit] = projectionOf(panel), each = 180 / Math.PI / (projection.radius / unit);
    move(Number(state.lon) - (now[0] - before[0]) * each, Number(state.lat) + (now[1] - before[1]) * each);
    later();
  });
  const end = (event) => {
    pointers.delete(event.pointerId);
    if (event.type !== "pointerup" || !began || began.moved || pointers.size) return;
    const found = locate(position(event));
    if (found) choose(found[1], found[0]);
  };
  panel.map.addEventListener("pointerup", end);
  panel.map.addEventListener("pointercancel", end);
  panel.map.addEventListener("pointerleave", () => { if (!panel.said.classList.contains("error")) say(panel, ""); });
  panel.map.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 500), ...position(event));
  }, { passive: false });
}

/** Says the value at the nearest grid point below the pointer. */
function tell(panel, found) {
  if (!found || !panel.shown || panel.said.classList.contains("error")) return;
  const value = panel.shown.grid.nearest(panel.shown.field.values, found[0], found[1]);
  const units = unitsOf(panel.shown.choice);
  say(panel, `${degrees(found[1], "NS")} ${degrees(found[0], "EW")}: ${Number.isNaN(value) ? "no value" : `${Number(value.toPrecision(4))} ${units}`}`);
}

function choose(lat, lon) {
  state.place = `${lat.toFixed(2)},${lon.toFixed(2)}`;
  remember();
  drawAll();
  readSeries();
}

const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1),
  ArrowUp: () => stepLevel(-1), ArrowDown: () => stepLevel(1),
  "[": () => stepIn($("member"), "member", -1), "]": () => stepIn($("member"), "member", 1),
  v: () => stepIn($("quantity"), "field", 1), V: () => stepIn($("quantity"), "field", -1),
  m: () => firstKind("mean"), s: () => firstKind("spread"), e: () => firstKind("member"), p: () => firstKind("probability"), a: () => firstKind("anomaly"),
  2: () => $("second").options.length > 1 && show({ second: state.second ? "" : choices().find(([value]) => value !== state.first)?.[0] ?? "" }),
  c: () => stepIn($("storms"), "storms", 1), g: () => stepIn($("projection"), "projection", 1),
  "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: () => $("whole").click(),
  " ": play, r: () => $("rescale").click(), b: () => $("large").click(), "?": () => $("keys").showModal(),
  Escape: () => (state.large ? $("large").click() : state.place && $("close").click()),
};
const stepLevel = (by) => {
  const levels = levelsOf(state.field).map(String), at = levels.indexOf(state.level) + by;
  if (levels[at]) show({ level: levels[at] });
};

function listen() {
  const bind = (id, name) => $(id).addEventListener("change", (event) => {
    show({ [name]: event.target.value });
  });
  for (const [id, name] of [["quantity", "field"], ...["level", "first", "second", "member", "threshold", "below", "lines", "projection", "init", "storms"].map((same) => [same, same])]) bind(id, name);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("lead").addEventListener("input", (event) => show({ hours: String(timed().lead_hours[event.target.value]) }));
  $("back").addEventListener("click", () => step(-1));
  $("on").addEventListener("click", () => step(1));
  $("play").addEventListener("click", play);
  $("rescale").addEventListener("click", () => { scales.clear(); drawAll(); });
  $("whole").addEventListener("click", () => { Object.assign(state, { lat: "0", lon: "0", zoom: "1" }); remember(); drawAll(); });
  $("large").addEventListener("click", () => { show({ large: state.large ? "" : "1" }); });
  $("help").addEventListener("click", () => $("keys").showModal());
  $("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    $("copy").textContent = "Copied";
    setTimeout(() => { $("copy").textContent = "Copy link"; }, 1500);
  });
  $("close").addEventListener("click", () => { state.place = ""; remember(); drawAll(); readSeries(); });
  $("place").querySelector("canvas").addEventListener("click", (event) => {
    const [first, last, left, right] = span, time = first + ((event.offsetX - left) / (right - left)) * (last - first);
    const hours = timed().lead_hours, wanted = (time - moment(state.init)) / HOUR;
    show({ hours: String(hours.reduce((best, hour) => (Math.abs(hour - wanted) < Math.abs(best - wanted) ? hour : best))) });
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || $("keys").open || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
    if (event.target.tagName === "BUTTON" && [" ", "Enter"].includes(event.key)) return;
    if (event.shiftKey && ["ArrowRight", "ArrowLeft"].includes(event.key)) stepDay(event.key === "ArrowRight" ? 1 : -1);
    else if (KEYS[event.key]) KEYS[event.key]();
    else return;
    event.preventDefault();
  });
  panels.forEach(listenToMap);
  window.addEventListener("hashchange", () => { recall(); show(); });
  let resizing = 0;
  window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => { drawAll(); drawSeries(); }, 100); });
}

async function begin() {
  try {
    about = await ask("description");
  } catch (error) {
    document.body.dataset.state = "error";
    say(panels[0], error.message, true);
    return;
  }
  recall();
  listen();
  show();
}

begin();
