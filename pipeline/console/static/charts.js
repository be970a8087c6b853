// Charts in SVG, in the page's own colours: lines over time, bars, a histogram, stacked shares.

import { h, s, count, fill, colourOf } from "./dom.js";

const PAD = { left: 52, right: 10, top: 10, bottom: 24 };
const STEPS = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** Up to four equal steps from 0 that reach `most` and end close above it; whole ones where all values are. */
function axis(most, whole = false) {
  if (!(most > 0)) return whole ? [0, 1] : [0];
  const power = 10 ** Math.floor(Math.log10(most / 4));
  const step = STEPS.map((each) => each * power).find((each) => each * 4 >= most && (!whole || Number.isInteger(each))) ?? 1;
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, i) => i * step);
}

const short = (n) => n >= 1e6 ? `${+(n / 1e6).toFixed(1)}M` : n >= 1e3 ? `${+(n / 1e3).toFixed(1)}k` : `${+n.toFixed(2)}`;
/** "1.50 s" as an axis says it: "1.5 s". */
const tidy = (text) => text.replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");

/** A place for an SVG that is drawn in its true size, and again when that changes: letters keep theirs. */
function canvas(title, draw) {
  const svg = s("svg.chart", { role: "img", "aria-label": title });
  const again = () => {
    const { clientWidth: width, clientHeight: height } = svg;
    if (!width || !height) return;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    fill(svg, draw(width, height));
  };
  new ResizeObserver(again).observe(svg);
  return { svg, again, plot: h("div.plot", {}, svg) };
}

function grid(width, height, values, format, label = (v) => tidy(format(v))) {
  const top = values.at(-1) || 1, floor = height - PAD.bottom;
  const y = (value) => floor - (floor - PAD.top) * value / top;
  const lines = values.map((value) => s("g", {},
    s("line.grid", { x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }),
    s("text.tick.end", { x: PAD.left - 8, y: y(value) + 4 }, label(value))));
  return { y, floor, lines };
}

const figure = (title, names, plot) => h("figure.figure", {},
  h("figcaption", {}, h("strong", {}, title), h("span.legend", {}, names.map(([className, name]) => h("span", {}, h(`i.key.${className}`), name)))), plot);

/**
 * Lines over time. `series` are {name, className, at}: `at` is the column of `points`; a missing value leaves a gap.
 * `marks` are values worth a line of their own, drawn where the axis reaches them.
 */
export class Lines {
  constructor(title, series, { format = short, area = false, window = 300, tick, marks = [] } = {}) {
    Object.assign(this, { series, format, area, window, marks, points: [], tick: tick || ((p) => new Date(p[0] * 1000).toLocaleTimeString("en-GB")) });
    this.canvas = canvas(title, (width, height) => this.drawn(width, height));
    this.tip = h("div.tip", { hidden: true });
    this.canvas.plot.append(this.tip);
    this.element = figure(title, series.map((each) => [each.className, each.name]), this.canvas.plot);
    this.canvas.svg.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.svg.addEventListener("pointerleave", () => { this.tip.hidden = true; this.cursor?.setAttribute("visibility", "hidden"); });
  }

  draw(points) {
    this.points = points.slice(-this.window);
    this.canvas.again();
  }

  drawn(width, height) {
    const { points } = this, span = Math.max(1, points.length - 1);
    const values = points.flatMap((p) => this.series.map((each) => p[each.at])).filter((v) => v !== null && v !== undefined);
    if (!values.length) return s("text.none", { x: width / 2, y: height / 2 }, "nothing to show yet");
    const ticks = axis(Math.max(0, ...values), values.every(Number.isInteger));
    const { y, floor, lines: rules } = grid(width, height, ticks, this.format);
    this.x = (index) => PAD.left + (width - PAD.left - PAD.right) * (points.length === 1 ? 1 : index / span);
    // The first series is the one to be seen: it is drawn last.
    const lines = [...this.series].reverse().flatMap((each) => runs(points, each.at).map((run) => {
      const path = run.map(([index, value]) => `${this.x(index).toFixed(1)},${y(value).toFixed(1)}`).join("L");
      const dot = run.length === 1 && s(`circle.dot-mark.${each.className}`, { cx: this.x(run[0][0]), cy: y(run[0][1]), r: 2.5 });
      const under = this.area && run.length > 1 &&
        s(`path.area.${each.className}`, { d: `M${this.x(run[0][0])},${floor}L${path}L${this.x(run.at(-1)[0])},${floor}Z` });
      return [under, s(`path.line.${each.className}`, { d: `M${path}` }), dot];
    }));
    const marked = this.marks.filter((mark) => mark <= ticks.at(-1)).map((mark) => s("line.mark", { x1: PAD.left, x2: width - PAD.right, y1: y(mark), y2: y(mark) }));
    const places = points.length > 2 ? [[0, "start"], [Math.floor(span / 2), "middle"], [span, "end"]] : points.length === 2 ? [[0, "start"], [1, "end"]] : [[0, "end"]];
    const times = places.map(([index, place]) => s(`text.tick.${place}`, { x: this.x(index), y: height - 5 }, this.tick(points[index])));
    this.cursor = s("line.cursor", { y1: PAD.top, y2: floor, visibility: "hidden" });
    return [rules, marked, lines, times, this.cursor];
  }

  point(event) {
    if (!this.points.length || !this.cursor) return;
    const box = this.canvas.svg.getBoundingClientRect();
    const part = (event.clientX - box.left - PAD.left) / (box.width - PAD.left - PAD.right);
    const index = Math.max(0, Math.min(this.points.length - 1, Math.round(part * (this.points.length - 1))));
    const point = this.points[index];
    this.cursor.setAttribute("x1", this.x(index));
    this.cursor.setAttribute("x2", this.x(index));
    this.cursor.setAttribute("visibility", "visible");
    fill(this.tip, h("strong", {}, this.tick(point)),
      this.series.map((each) => h("div", {}, h(`i.key.${each.className}`), `${each.name} `, h("b", {}, point[each.at] === null || point[each.at] === undefined ? "–" : this.format(point[each.at])))));
    this.tip.hidden = false;
    const beside = this.x(index) + 12, left = beside + this.tip.offsetWidth > box.width ? beside - 24 - this.tip.offsetWidth : beside;
    this.tip.style.left = `${Math.max(0, left)}px`;
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
  return canvas(title, (width, height) => {
    const { y, floor, lines } = grid(width, height, axis(Math.max(...bins), true), short);
    const each = (width - PAD.left - PAD.right) / bins.length;
    return [lines,
      bins.map((n, i) => n > 0 && s("rect.column.c1", { x: PAD.left + i * each + 1.5, y: Math.min(y(n), floor - 1.5), width: each - 3, height: Math.max(1.5, floor - y(n)), rx: 2 },
        s("title", {}, `${(i / bins.length).toFixed(2)} to ${((i + 1) / bins.length).toFixed(2)}: ${count(n)}`))),
      [0, 0.5, 1].map((part, place) => s(`text.tick.${["start", "middle", "end"][place]}`, { x: PAD.left + part * (width - PAD.left - PAD.right), y: height - 5 }, part.toFixed(1)))];
  }).plot;
}

/** Shares over time: a column for each of `columns`, {tick, shares: {label: n}}. */
export function stacked(title, columns) {
  const labels = [...new Set(columns.flatMap((column) => Object.keys(column.shares)))].sort();
  const chart = canvas(title, (width, height) => {
    const { y, lines } = grid(width, height, [0, 0.25, 0.5, 0.75, 1], null, (v) => `${v * 100} %`);
    const each = Math.min(56, (width - PAD.left - PAD.right) / Math.max(1, columns.length));
    const pieces = columns.flatMap((column, i) => {
      const total = Object.values(column.shares).reduce((a, b) => a + b, 0);
      let below = 0;
      return labels.filter((label) => column.shares[label]).map((label) => {
        const part = column.shares[label] / total;
        const piece = s(`rect.column.${colourOf(label)}`, { x: PAD.left + i * each + 1, y: y(below + part), width: Math.max(1, each - 2), height: Math.max(0, y(below) - y(below + part) - 1) },
          s("title", {}, `${column.tick} ${label}: ${count(column.shares[label])} (${(part * 100).toFixed(0)} %)`));
        below += part;
        return piece;
      });
    });
    const ends = columns.length * each < 150 ? [0] : [0, columns.length - 1];
    return [lines, pieces, columns.length > 0 && ends.map((i) => s(`text.tick.${i ? "end" : "start"}`, { x: PAD.left + (i ? i + 1 : 0) * each, y: height - 5 }, columns[i].tick))];
  });
  return figure(title, labels.slice(0, 10).map((label) => [colourOf(label), label]), chart.plot);
}
