// The meteogram: boxes of the members, from top to bottom one panel a quantity, with the analysis where there is one.

import { roundStep } from "./map.js";

const BOX = "#a6cce5", INK = "#1a1a1a", BLUE = "#0072b2", ORANGE = "#d55e00";
const HOUR = 3600e3;

/** Returns a quantile of sorted numbers, interpolated linearly. */
export function quantile(sorted, share) {
  const at = share * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

const whole = (values) => (values ?? []).filter((value) => value !== null).sort((a, b) => a - b);

/** Draws what has come so far; returns where times lie on the canvas, as [first, last, left, right] in CSS pixels. */
export function drawMeteogram(canvas, series, quantities, now) {
  const unit = Math.min(window.devicePixelRatio || 1, 2), style = getComputedStyle(canvas), size = parseFloat(style.fontSize) * 0.85;
  const names = series.quantities, tall = Math.max(96, size * 8), foot = size * 3.2;
  canvas.style.height = `${names.length * tall + foot}px`;
  const wide = canvas.clientWidth, height = names.length * tall + foot;
  canvas.width = Math.round(wide * unit);
  canvas.height = Math.round(height * unit);
  const context = canvas.getContext("2d");
  context.scale(unit, unit);
  context.font = `${size}px ${style.fontFamily}`;
  const left = size * 4.2, right = wide - size * 0.8, [first, last] = [series.times[0], series.times.at(-1)];
  const x = (time) => left + ((time - first + HOUR * 3) / (last - first + HOUR * 6)) * (right - left);
  const gap = ((right - left) / Math.max(series.times.length, 2)) * 0.62, half = Math.max(1.2, Math.min(gap / 2, 9));
  names.forEach((name, index) => {
    const box = { top: index * tall + size * 1.5, bottom: (index + 1) * tall - size * 0.5, left, right, half, size };
    drawPanel(context, series, name, quantities[name], box, x, now);
  });
  drawDays(context, first, last, x, { top: 0, bottom: names.length * tall, size, narrow: wide < 600 });
  return [first - HOUR * 3, last + HOUR * 3, left, right];
}

function drawPanel(context, series, name, about, box, x, now) {
  const lines = series.lines.map((line) => ({ time: line.time, sorted: whole(line.values[name]), truth: line.truth[name] }));
  const all = lines.flatMap((line) => [line.sorted[0], line.sorted.at(-1), line.truth]).filter((value) => value !== undefined && value !== null);
  context.fillStyle = INK;
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  context.font = context.font.replace(/^(bold )?/, "bold ");
  context.fillText(`${about.title} (${about.units})`, box.left, box.top - box.size * 0.35);
  context.font = context.font.replace("bold ", "");
  if (!all.length) return;
  const floor = name === "tp6h" || name === "wind10";
  const lowest = floor ? 0 : Math.min(...all), highest = Math.max(...all, floor ? 1 : -Infinity);
  const step = roundStep(highest - lowest, 3), low = Math.floor(lowest / step) * step, high = Math.max(Math.ceil(highest / step) * step, low + step);
  const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let value = low; value <= high + step / 9; value += step) {
    context.strokeStyle = "#ddd";
    context.lineWidth = 0.8;
    context.strokeRect(box.left, y(value), box.right - box.left, 0);
    context.fillStyle = INK;
    context.fillText(String(Number(value.toPrecision(6))), box.left - 5, y(value));
  }
  context.strokeStyle = "#555";
  context.setLineDash([3, 3]);
  context.strokeRect(x(now), box.top, 0, box.bottom - box.top);
  context.setLineDash([]);
  for (const { time, sorted } of lines) drawBox(context, sorted, x(time), y, box.half);
  drawTruth(context, lines, x, y);
}

/** Draws whiskers over all members, a box over the middle half, the median; of fewer than five, the members. */
function drawBox(context, sorted, x, y, half) {
  if (!sorted.length) return;
  context.strokeStyle = BLUE;
  context.fillStyle = BLUE;
  if (sorted.length < 5) {
    for (const value of sorted) context.fillRect(x - half * 0.6, y(value) - 1, half * 1.2, 2);
    return;
  }
  context.lineWidth = 1.2;
  context.strokeRect(x, y(sorted.at(-1)), 0, y(sorted[0]) - y(sorted.at(-1)));
  const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => y(quantile(sorted, share)));
  context.fillStyle = BOX;
  context.fillRect(x - half, high, 2 * half, low - high);
  context.strokeRect(x - half, high, 2 * half, low - high);
  context.fillStyle = INK;
  context.fillRect(x - half, middle - 1, 2 * half, 2);
}

function drawTruth(context, lines, x, y) {
  const known = lines.filter((line) => line.truth !== undefined && line.truth !== null);
  context.strokeStyle = ORANGE;
  context.fillStyle = ORANGE;
  context.lineWidth = 1.6;
  context.beginPath();
  known.forEach((line) => context.lineTo(x(line.time), y(line.truth)));
  context.stroke();
  for (const line of known) context.fillRect(x(line.time) - 1.7, y(line.truth) - 1.7, 3.4, 3.4);
}

function drawDays(context, first, last, x, box) {
  const day = 24 * HOUR, count = (last - first) / day, every = Math.ceil(count / (box.narrow ? 5 : 11));
  context.textAlign = "center";
  context.textBaseline = "top";
  for (let time = Math.ceil(first / day) * day, index = 0; time <= last; time += day, index += 1) {
    context.strokeStyle = "#ccc";
    context.lineWidth = 0.6;
    context.strokeRect(x(time), box.top, 0, box.bottom - box.top);
    if (index % every) continue;
    const date = new Date(time), name = date.toLocaleDateString("en-GB", { weekday: "short", timeZone: "UTC" });
    context.fillStyle = INK;
    context.fillText(name, x(time), box.bottom + box.size * 0.2);
    context.fillText(date.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" }), x(time), box.bottom + box.size * 1.4);
  }
}
