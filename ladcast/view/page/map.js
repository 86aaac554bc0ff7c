// Maps on a canvas: projections, shading in bands, lines of equal value, coasts, tracks.

const RAD = Math.PI / 180;
const wrap = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Equal Earth (Savric, Patterson and Jenny 2018, doi:10.1080/13658816.2018.1504949).
const [A1, A2, A3, A4] = [1.340264, -0.081106, 0.000893, 0.003796];
const M = Math.sqrt(3) / 2;
const slope = (t) => A1 + 3 * A2 * t ** 2 + t ** 6 * (7 * A3 + 9 * A4 * t * t);
const rise = (t) => t * (A1 + A2 * t * t + t ** 6 * (A3 + A4 * t * t));
const HALF_WIDTH = Math.PI / (M * slope(0)), HALF_HEIGHT = rise(Math.PI / 3);

/** A view of the globe: a projection, its centre in degrees, and how near it is, in pixels of a canvas. */
export class Projection {
  constructor(kind, view, width, height) {
    Object.assign(this, { kind, ...view, width, height });
    const half = { flat: [Math.PI, Math.PI / 2], world: [HALF_WIDTH, HALF_HEIGHT], globe: [1.02, 1.02] }[kind];
    this.radius = view.zoom * Math.min(width / 2 / half[0], height / 2 / half[1]);
    this.sin = Math.sin(view.lat * RAD);
    this.cos = Math.cos(view.lat * RAD);
    this.middle = kind === "world" ? rise(Math.asin(M * this.sin)) : view.lat * RAD;
  }

  /** Returns x and y in pixels, or null on the far side of the globe. */
  forward(lon, lat) {
    const { radius, width, height } = this, away = wrap(lon - this.lon) * RAD, phi = lat * RAD;
    let x = away, y = phi - this.middle;
    if (this.kind === "world") {
      const t = Math.asin(M * Math.sin(phi));
      x = (away * Math.cos(t)) / (M * slope(t));
      y = rise(t) - this.middle;
    } else if (this.kind === "globe") {
      if (this.sin * Math.sin(phi) + this.cos * Math.cos(phi) * Math.cos(away) < 0) return null;
      x = Math.cos(phi) * Math.sin(away);
      y = this.cos * Math.sin(phi) - this.sin * Math.cos(phi) * Math.cos(away);
    }
    return [width / 2 + radius * x, height / 2 - radius * y];
  }

  /** Returns a function from x to [longitude, latitude] on the row y (one array, used again), or to null off the globe. */
  inverse(y) {
    const { radius, width, height } = this, up = (height / 2 - y) / radius, level = up + this.middle, found = [0, 0];
    const across = (x) => (x - width / 2) / radius;
    if (this.kind === "flat") {
      found[1] = level / RAD;
      if (Math.abs(found[1]) > 90) return () => null;
      return (x) => {
        found[0] = wrap(this.lon + across(x) / RAD);
        return Math.abs(across(x)) > Math.PI ? null : found;
      };
    }
    if (this.kind === "world") {
      if (Math.abs(level) > HALF_HEIGHT) return () => null;
      let t = level / A1;
      for (let turn = 0; turn < 6; turn += 1) t -= (rise(t) - level) / slope(t);
      const factor = (M * slope(t)) / Math.cos(t);
      found[1] = Math.asin(clamp(Math.sin(t) / M, -1, 1)) / RAD;
      return (x) => {
        const away = across(x) * factor;
        found[0] = wrap(this.lon + away / RAD);
        return Math.abs(away) > Math.PI ? null : found;
      };
    }
    return (x) => {
      const right = across(x), square = right * right + up * up;
      if (square > 1) return null;
      const front = Math.sqrt(1 - square);
      found[0] = wrap(this.lon + Math.atan2(right, front * this.cos - up * this.sin) / RAD);
      found[1] = Math.asin(clamp(up * this.cos + front * this.sin, -1, 1)) / RAD;
      return found;
    };
  }
}

/** Finds the place of a value among points that increase, as a fraction of an index. */
function place(points, value) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle] <= value) low = middle;
    else high = middle;
  }
  return low + (value - points[low]) / (points[high] - points[low]);
}

const TENTHS = 10;

/** Rows and columns of a grid, and where a position lies among them. */
export class Grid {
  constructor(latitude, longitude) {
    Object.assign(this, { latitude, longitude, rows: latitude.length, columns: longitude.length });
    this.step = (longitude.at(-1) - longitude[0]) / (this.columns - 1);
    this.global = this.step * this.columns > 359;
    const half = this.global ? 90 : (latitude[1] - latitude[0]) / 2;
    Object.assign(this, { south: latitude[0] - half, north: latitude.at(-1) + half });
    this.table = Float64Array.from({ length: 180 * TENTHS + 1 }, (_, index) => place(latitude, clamp(index / TENTHS - 90, latitude[0], latitude.at(-1))));
    this.found = [0, 0];
  }

  /** Returns the row and column as fractions (one array, used again), or null outside of a region. */
  find(lon, lat) {
    if (lat < this.south || lat > this.north) return null;
    const east = (((lon - this.longitude[0]) % 360) + 360) % 360, at = (lat + 90) * TENTHS, before = Math.min(at | 0, 180 * TENTHS - 1);
    let column = east / this.step;
    if (!this.global) {
      if (east > 360 - this.step / 2) column = 0;
      if (column > this.columns - 0.5) return null;
      column = Math.min(column, this.columns - 1);
    }
    this.found[0] = this.table[before] + (at - before) * (this.table[before + 1] - this.table[before]);
    this.found[1] = column;
    return this.found;
  }

  /** Returns the value at the nearest point. */
  nearest(values, lon, lat) {
    const found = this.find(lon, lat);
    return found ? values[Math.round(found[0]) * this.columns + (Math.round(found[1]) % this.columns)] : NaN;
  }
}

const FINE = 180;

/** Returns a coarse field on a grid several times finer, by cubic splines (Catmull and Rom), within its range. */
export function refine(grid, values) {
  const times = Math.ceil(FINE / grid.columns);
  if (times < 2 || !grid.global || values.some(Number.isNaN)) return { grid, values };
  const weights = Array.from({ length: times }, (_, index) => {
    const t = index / times;
    return [(-t + 2 * t * t - t ** 3) / 2, (2 - 5 * t * t + 3 * t ** 3) / 2, (t + 4 * t * t - 3 * t ** 3) / 2, (t ** 3 - t * t) / 2];
  });
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const { rows, columns } = grid, wide = columns * times, tall = (rows - 1) * times + 1;
  const across = new Float32Array(rows * wide);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < wide; column += 1) {
      const base = Math.floor(column / times), w = weights[column % times];
      let sum = 0;
      for (let k = 0; k < 4; k += 1) sum += w[k] * values[row * columns + ((base + k - 1 + columns) % columns)];
      across[row * wide + column] = sum;
    }
  }
  const fine = new Float32Array(tall * wide), latitude = [];
  for (let row = 0; row < tall; row += 1) {
    const base = Math.min(Math.floor(row / times), rows - 2), t = (row - base * times) / times;
    const w = t === 1 ? [0, 0, 1, 0] : weights[Math.round(t * times)];
    latitude.push(grid.latitude[base] + t * (grid.latitude[base + 1] - grid.latitude[base]));
    for (let column = 0; column < wide; column += 1) {
      let sum = 0;
      for (let k = 0; k < 4; k += 1) sum += w[k] * across[clamp(base + k - 1, 0, rows - 1) * wide + column];
      fine[row * wide + column] = clamp(sum, low, high);
    }
  }
  const longitude = Array.from({ length: wide }, (_, column) => grid.longitude[0] + (column * grid.step) / times);
  return { grid: new Grid(latitude, longitude), values: fine };
}

const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** Returns `count` colours, evenly along a palette. */
export function spread(palette, count) {
  return Array.from({ length: count }, (_, index) => {
    const at = count < 2 ? 0 : (index / (count - 1)) * (palette.length - 1), first = Math.min(Math.floor(at), palette.length - 2);
    const [from, to] = [parts(palette[first]), parts(palette[first + 1])];
    return from.map((value, channel) => Math.round(value + (at - first) * (to[channel] - value)));
  });
}

const STEPS = [1, 2, 2.5, 5, 10];

/** Returns a round step that divides a range into about `count`. */
export function roundStep(range, count) {
  const raw = Math.max(range, 1e-12) / count, power = 10 ** Math.floor(Math.log10(raw));
  return power * STEPS.find((step) => step * power >= raw * 0.999);
}

/** Returns round edges of bands from low to high, 10 to 20; `even` puts zero in the middle. */
export function roundEdges(low, high, even) {
  if (even) {
    const most = Math.max(Math.abs(low), Math.abs(high)), step = roundStep(2 * most, 13);
    const count = Math.max(1, Math.ceil(most / step - 0.5));
    return Array.from({ length: 2 * count }, (_, index) => (index - count + 0.5) * step);
  }
  const step = roundStep(high - low, 18), first = Math.floor(low / step + 1e-6), last = Math.ceil(high / step - 1e-6);
  return Array.from({ length: Math.max(last - first, 1) + 1 }, (_, index) => Number(((first + index) * step).toPrecision(8)));
}

const band = (edges, value) => {
  let index = 0;
  while (index < edges.length && value >= edges[index]) index += 1;
  return index;
};

/** Where each pixel of a canvas lies on a grid; made once for a view, as only values change from time to time. */
export class Pixels {
  constructor(projection, grid) {
    const { width, height } = projection;
    this.rows = new Float32Array(width * height).fill(-1);
    this.columns = new Float32Array(width * height);
    for (let y = 0, index = 0; y < height; y += 1) {
      const inverse = projection.inverse(y + 0.5);
      for (let x = 0; x < width; x += 1, index += 1) {
        const position = inverse(x + 0.5), found = position && grid.find(position[0], position[1]);
        if (!found) continue;
        this.rows[index] = found[0];
        this.columns[index] = found[1];
      }
    }
  }
}

/** Shades a field in bands into the pixels of an image; NaN is grey, as are points outside of a region. */
export function shade(image, pixels, grid, values, edges, colours) {
  const out = new Uint32Array(image.data.buffer);
  const packed = colours.map(([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
  const even = edges.length > 2 && Math.abs(edges[1] - edges[0] - (edges.at(-1) - edges[0]) / (edges.length - 1)) < 1e-9 * Math.abs(edges.at(-1) - edges[0]);
  const scale = (edges.length - 1) / (edges.at(-1) - edges[0]), first = edges[0];
  const { columns } = grid, lastRow = grid.rows - 1, lastColumn = columns - 1;
  for (let index = 0; index < out.length; index += 1) {
    const row = pixels.rows[index];
    if (row < 0) { out[index] = 0; continue; }
    const column = pixels.columns[index], south = row | 0, west = column | 0;
    const north = south < lastRow ? south + 1 : south, east = west < lastColumn ? west + 1 : grid.global ? 0 : west;
    const up = row - south, right = column - west;
    const value = (1 - up) * ((1 - right) * values[south * columns + west] + right * values[south * columns + east])
      + up * ((1 - right) * values[north * columns + west] + right * values[north * columns + east]);
    if (value !== value) { // NaN: the nearest point may still have a value, as at a coast
      const near = values[Math.round(row) * columns + (Math.round(column) % columns)];
      out[index] = near === near ? packed[band(edges, near)] : 0xffe0e0e0;
    } else {
      out[index] = packed[even ? clamp(Math.floor((value - first) * scale + 1), 0, edges.length) : band(edges, value)];
    }
  }
}

/** Draws a path through [longitude, latitude] pairs, broken where it leaves the map or crosses its seam. */
function path(context, projection, flat) {
  let before = null;
  for (let index = 0; index < flat.length; index += 2) {
    const now = projection.forward(flat[index], flat[index + 1]);
    if (now && before && Math.abs(now[0] - before[0]) < projection.radius) context.lineTo(now[0], now[1]);
    else if (now) context.moveTo(now[0], now[1]);
    before = now;
  }
}

/** Draws the edge of the globe, or of the world map. */
function drawEdge(context, projection, unit) {
  const { kind, radius, width, height, lon } = projection, east = lon + 180 - 1e-9, west = lon - 180 + 1e-9;
  context.strokeStyle = "#777";
  context.lineWidth = unit;
  context.beginPath();
  if (kind === "globe") {
    context.arc(width / 2, height / 2, radius, 0, 7);
  } else {
    for (const [side, sign] of [[east, 1], [west, -1]]) {
      for (let lat = -90; lat <= 90; lat += 2) context.lineTo(...projection.forward(side, sign * lat));
    }
    context.closePath();
  }
  context.stroke();
}

/** Draws coastlines and a graticule. */
export function drawCoasts(context, projection, coasts, unit) {
  context.lineJoin = "round";
  drawEdge(context, projection, unit);
  context.strokeStyle = "rgb(90 90 90 / 35%)";
  context.lineWidth = 0.6 * unit;
  context.beginPath();
  for (let lon = -180; lon < 180; lon += 30) {
    path(context, projection, Array.from({ length: 91 }, (_, index) => [lon, index * 2 - 90]).flat());
  }
  for (let lat = -60; lat <= 60; lat += 30) {
    path(context, projection, Array.from({ length: 181 }, (_, index) => [projection.lon + (index - 90) * 1.9999, lat]).flat());
  }
  context.stroke();
  for (const [style, width] of [["rgb(255 255 255 / 70%)", 2.6], ["#333", 1.1]]) {
    context.strokeStyle = style;
    context.lineWidth = width * unit;
    context.beginPath();
    for (const line of coasts) path(context, projection, line);
    context.stroke();
  }
}

const SIDES = [[], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]], [[3, 2]], [[0, 2]], [[0, 1], [3, 2]], [[1, 2]], [[3, 1]], [[0, 1]], [[3, 0]], []];
const CORNERS = [[0, 0], [0, 1], [1, 1], [1, 0]];

/** Draws lines of equal value by marching squares, with labels here and there. */
export function drawLines(context, projection, grid, values, step, unit) {
  const { rows, columns, latitude, longitude } = grid, labels = [];
  const at = (row, column) => values[row * columns + (column % columns)];
  context.lineWidth = 1.1 * unit;
  context.strokeStyle = "#1a1a1a";
  context.beginPath();
  for (let row = 0; row < rows - 1; row += 1) {
    for (let column = 0; column < columns - (grid.global ? 0 : 1); column += 1) {
      const [a, b, c, d] = [at(row, column), at(row, column + 1), at(row + 1, column + 1), at(row + 1, column)];
      const low = Math.ceil(Math.min(a, b, c, d) / step) * step, high = Math.max(a, b, c, d);
      if (!(low <= high)) continue;
      const corner = [a, b, c, d];
      for (let level = low; level <= high; level += step) {
        const code = corner.reduce((sum, value, index) => sum + (value >= level ? 1 << index : 0), 0);
        for (const [from, to] of SIDES[code]) {
          const ends = [from, to].map((side) => {
            const [a, b] = [side, (side + 1) % 4], share = (level - corner[a]) / (corner[b] - corner[a]);
            const up = CORNERS[a][0] + share * (CORNERS[b][0] - CORNERS[a][0]), right = CORNERS[a][1] + share * (CORNERS[b][1] - CORNERS[a][1]);
            return [longitude[0] + (column + right) * grid.step, latitude[row] + up * (latitude[row + 1] - latitude[row])];
          });
          const [first, last] = ends.map(([lon, lat]) => projection.forward(lon, lat));
          if (!first || !last || Math.hypot(first[0] - last[0], first[1] - last[1]) > projection.radius) continue;
          context.moveTo(first[0], first[1]);
          context.lineTo(last[0], last[1]);
          if (Math.round(level / step) % 2 === 0) labels.push([first, level]);
        }
      }
    }
  }
  context.stroke();
  label(context, projection, labels, unit);
}

/** Writes values beside lines, none near another. */
function label(context, projection, labels, unit) {
  const written = [], apart = 110 * unit;
  context.font = `${12 * unit}px system-ui, "DejaVu Sans", sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let index = 0; index < labels.length; index += 7) { // some places are enough to choose from
    const [[x, y], level] = labels[index], edge = 24 * unit;
    if (x < edge || y < edge || x > projection.width - edge || y > projection.height - edge) continue;
    if (written.some(([left, top]) => Math.hypot(left - x, top - y) < apart)) continue;
    written.push([x, y]);
    const text = String(Number(level.toPrecision(5)));
    context.lineWidth = 3.5 * unit;
    context.strokeStyle = "#fff";
    context.strokeText(text, x, y);
    context.fillStyle = "#1a1a1a";
    context.fillText(text, x, y);
  }
}

/** Draws the tracks of all members, and a dot where each low is at this time. */
export function drawTracks(context, projection, tracks, hours, unit) {
  for (const [style, width] of [["rgb(255 255 255 / 60%)", 3], ["rgb(0 70 140 / 75%)", 1.3]]) {
    context.strokeStyle = style;
    context.lineWidth = width * unit;
    context.beginPath();
    for (const track of tracks) path(context, projection, track.longitude.flatMap((lon, index) => [lon, track.latitude[index]]));
    context.stroke();
  }
  for (const track of tracks) {
    const index = track.hours.indexOf(hours), at = index >= 0 && projection.forward(track.longitude[index], track.latitude[index]);
    if (!at) continue;
    context.beginPath();
    context.arc(at[0], at[1], 4 * unit, 0, 7);
    context.fillStyle = "#d55e00";
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = unit;
    context.stroke();
  }
}

/** Marks the chosen point. */
export function drawPoint(context, projection, lon, lat, unit) {
  const at = projection.forward(lon, lat);
  if (!at) return;
  for (const [style, width] of [["#fff", 5], ["#000", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width * unit;
    context.beginPath();
    context.arc(at[0], at[1], 7 * unit, 0, 7);
    context.moveTo(at[0] - 12 * unit, at[1]);
    context.lineTo(at[0] + 12 * unit, at[1]);
    context.moveTo(at[0], at[1] - 12 * unit);
    context.lineTo(at[0], at[1] + 12 * unit);
    context.stroke();
  }
}

/** Draws the colours with their bounds. */
export function drawLegend(canvas, edges, colours, units) {
  const unit = Math.min(window.devicePixelRatio || 1, 2), style = getComputedStyle(canvas);
  const width = (canvas.width = Math.round(canvas.clientWidth * unit)), height = (canvas.height = Math.round(canvas.clientHeight * unit));
  const context = canvas.getContext("2d"), size = parseFloat(style.fontSize) * 0.85 * unit;
  context.font = `${size}px ${style.fontFamily}`;
  const right = context.measureText(` ${units}`).width + size, each = (width - right - size) / colours.length;
  colours.forEach(([r, g, b], index) => {
    context.fillStyle = `rgb(${r} ${g} ${b})`;
    context.fillRect(size / 2 + index * each, 0, each + 0.5, height * 0.42);
  });
  context.strokeStyle = "#777";
  context.strokeRect(size / 2, 0.5, each * colours.length, height * 0.42);
  context.fillStyle = "#1a1a1a";
  context.textAlign = "center";
  context.textBaseline = "top";
  const texts = edges.map((edge) => String(Number(edge.toPrecision(6)))), widest = Math.max(...texts.map((text) => context.measureText(text).width));
  const every = Math.ceil((widest + size / 2) / each);
  texts.forEach((text, index) => {
    if (index % every === 0) context.fillText(text, size / 2 + (index + 1) * each, height * 0.5);
  });
  context.textAlign = "right";
  context.fillText(units, width - 2, height * 0.5 - size);
}
