// Charts in SVG, in the page's own colours: lines over time, bars, a histogram, stacked shares.

import { h, s, count, fill, colourOf } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 200;
const PAD = { left: 46, right: 10, top: 10, bottom: 22 };

const nice = (top) => {
  if (!(top > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= top);
};

const short = (n) => n >= 1e6 ? `${+(n / 1e6).toFixed(1)}M` : n >= 1e3 ? `${+(n / 1e3).toFixed(1)}k` : `${+n.toFixed(2)}`;

function frame(top, format) {
  const y = (value) => HEIGHT - PAD.bottom - (HEIGHT - PAD.top - PAD.bottom) * value / top;
  const grid = [0, 0.5, 1].map((part) => s("g", {},
    s("line.grid", { x1: PAD.left, x2: WIDTH - PAD.right, y1: y(top * part), y2: y(top * part) }),
    s("text.tick.end", { x: PAD.left - 8, y: y(top * part) + 4 }, format(top * part))));
  return { y, grid };
}

/** Lines over time. `series` are {name, className, at}: `at` is the column of `points`; a missing value leaves a gap. */
export class Lines {
  constructor(title, series, { format = short, area = false, window = 300, tick } = {}) {
    Object.assign(this, { title, series, format, area, window, tick: tick || ((p) => new Date(p[0] * 1000).toLocaleTimeString("en-GB")) });
    this.svg = s("svg.chart", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
    this.tip = h("div.tip", { hidden: true });
    this.element = h("figure.figure", {},
      h("figcaption", {}, h("strong", {}, title), h("span.legend", {}, series.map((each) => h("span", {}, h(`i.key.${each.className}`), each.name)))),
      h("div.plot", {}, this.svg, this.tip));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => { this.tip.hidden = true; this.cursor?.setAttribute("visibility", "hidden"); });
  }

  draw(points) {
    this.points = points = points.slice(-this.window);
    const values = points.flatMap((p) => this.series.map((each) => p[each.at])).filter((v) => v !== null && v !== undefined);
    const top = nice(Math.max(0, ...values));
    const { y, grid } = frame(top, this.format);
    const span = Math.max(1, points.length - 1);
    this.x = (index) => PAD.left + (WIDTH - PAD.left - PAD.right) * (points.length === 1 ? 1 : index / span);
    const floor = HEIGHT - PAD.bottom;
    const lines = this.series.flatMap((each) => runs(points, each.at).map((run) => {
      const path = run.map(([index, value]) => `${this.x(index).toFixed(1)},${y(value).toFixed(1)}`).join("L");
      const dot = run.length === 1 && s(`circle.dot-mark.${each.className}`, { cx: this.x(run[0][0]), cy: y(run[0][1]), r: 2.5 });
      const under = this.area && run.length > 1 &&
        s(`path.area.${each.className}`, { d: `M${this.x(run[0][0])},${floor}L${path}L${this.x(run.at(-1)[0])},${floor}Z` });
      return [under, s(`path.line.${each.className}`, { d: `M${path}` }), dot];
    }));
    const ticks = points.length > 2 ? [0, Math.floor(span / 2), span] : points.length === 2 ? [0, 1] : [];
    const places = ticks.length === 2 ? ["start", "end"] : ["start", "middle", "end"];
    const axis = ticks.map((index, place) => s(`text.tick.${places[place]}`,
      { x: this.x(index), y: HEIGHT - 5 }, this.tick(points[index])));
    this.cursor = s("line.cursor", { y1: PAD.top, y2: floor, visibility: "hidden" });
    const none = !values.length && s("text.none", { x: WIDTH / 2, y: HEIGHT / 2 }, "nothing to show yet");
    fill(this.svg, grid, lines, axis, this.cursor, none);
  }

  point(event) {
    if (!this.points?.length) return;
    const box = this.svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * WIDTH;
    const part = (at - PAD.left) / (WIDTH - PAD.left - PAD.right);
    const index = Math.max(0, Math.min(this.points.length - 1, Math.round(part * (this.points.length - 1))));
    const point = this.points[index];
    this.cursor.setAttribute("x1", this.x(index));
    this.cursor.setAttribute("x2", this.x(index));
    this.cursor.setAttribute("visibility", "visible");
    fill(this.tip, h("strong", {}, this.tick(point)),
      this.series.map((each) => h("div", {}, h(`i.key.${each.className}`), `${each.name} `, h("b", {}, point[each.at] === null || point[each.at] === undefined ? "–" : this.format(point[each.at])))));
    this.tip.hidden = false;
    this.tip.style.left = `${Math.min(75, Math.max(0, this.x(index) / WIDTH * 100))}%`;
  }
}

/** Stretches of points that have a value. */
function runs(points, at) {
  const found = [];
  let run = null;
  points.forEach((point, index) => {
    const value = point[at];
    if (value === null || value === undefined) run = null;
    else if (run) run.push([index, value]);
    else found.push(run = [[index, value]]);
  });
  return found;
}

/** Horizontal bars of {label: number}, the longest first. */
export function bars(counts, limit = 8, colour = colourOf) {
  const entries = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const total = entries.reduce((sum, [, n]) => sum + n, 0);
  const most = entries[0]?.[1] || 1;
  const rest = entries.slice(limit).reduce((sum, [, n]) => sum + n, 0);
  const shown = entries.slice(0, limit).map(([label, n]) => row(label, n, colour(label)));
  if (rest) shown.push(row(`${entries.length - limit} others`, rest, "c0"));
  return h("div.bars", { role: "list" }, shown);

  function row(label, n, className) {
    const bar = h(`i.bar.${className}`);
    bar.style.width = `${Math.max(0.5, 100 * n / most)}%`;
    return h("div.bar-row", { role: "listitem" }, h("span.bar-label", { title: label }, label),
      h("span.bar-track", {}, bar), h("span.bar-value", {}, count(n), h("small", {}, ` ${(100 * n / total).toFixed(0)} %`)));
  }
}

/** A histogram of equal bins from 0 to 1. */
export function histogram(title, bins) {
  const top = nice(Math.max(...bins));
  const { y, grid } = frame(top, short);
  const width = (WIDTH - PAD.left - PAD.right) / bins.length;
  const floor = HEIGHT - PAD.bottom;
  return s("svg.chart", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title }, grid,
    bins.map((n, i) => s("rect.column.c1", { x: PAD.left + i * width + 1.5, y: y(n), width: width - 3, height: Math.max(0, floor - y(n)), rx: 2 },
      s("title", {}, `${(i / bins.length).toFixed(2)} to ${((i + 1) / bins.length).toFixed(2)}: ${count(n)}`))),
    [0, 0.5, 1].map((part, place) => s(`text.tick.${["start", "middle", "end"][place]}`, { x: PAD.left + part * (WIDTH - PAD.left - PAD.right), y: HEIGHT - 5 }, part.toFixed(1))));
}

/** Shares over time: a column for each of `columns`, {tick, shares: {label: n}}. */
export function stacked(title, columns) {
  const { y, grid } = frame(1, (v) => `${Math.round(v * 100)} %`);
  const width = Math.min(56, (WIDTH - PAD.left - PAD.right) / Math.max(1, columns.length));
  const labels = [...new Set(columns.flatMap((column) => Object.keys(column.shares)))].sort();
  const pieces = columns.flatMap((column, i) => {
    const total = Object.values(column.shares).reduce((a, b) => a + b, 0);
    let below = 0;
    return labels.filter((label) => column.shares[label]).map((label) => {
      const part = column.shares[label] / total;
      const piece = s(`rect.column.${colourOf(label)}`, { x: PAD.left + i * width + 1, y: y(below + part), width: Math.max(1, width - 2), height: Math.max(0, y(below) - y(below + part) - 1) },
        s("title", {}, `${column.tick} ${label}: ${count(column.shares[label])} (${(part * 100).toFixed(0)} %)`));
      below += part;
      return piece;
    });
  });
  const ends = columns.length > 1 ? [0, columns.length - 1] : [0].slice(0, columns.length);
  return h("figure.figure", {},
    h("figcaption", {}, h("strong", {}, title), h("span.legend", {}, labels.slice(0, 10).map((label) => h("span", {}, h(`i.key.${colourOf(label)}`), label)))),
    s("svg.chart", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title }, grid, pieces,
      ends.map((i) => s("text.tick.start", { x: PAD.left + i * width + (i ? width - 40 : 0), y: HEIGHT - 5 }, columns[i].tick))));
}
