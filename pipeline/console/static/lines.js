// Lines over time, drawn by uPlot: real axes that keep gaps, values under the pointer, a range picked by dragging.

import { h, fill } from "./dom.js";
import { clock, full, minute, onZone, zone } from "./time.js";

/** The charts that are on the page; a view that was left takes its own along. */
const charts = new Set();
const dark = matchMedia("(prefers-color-scheme: dark)");
function shown() {
  for (const chart of charts) {
    if (chart.element.isConnected) continue;
    chart.chart?.destroy();
    charts.delete(chart);
  }
  return [...charts];
}
const redrawAll = () => shown().forEach((chart) => chart.build());
dark.addEventListener("change", redrawAll);
onZone(redrawAll);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const short = (n) => Math.abs(n) >= 1e6 ? `${+(n / 1e6).toFixed(1)}M` : Math.abs(n) >= 1e3 ? `${+(n / 1e3).toFixed(1)}k` : `${+n.toFixed(2)}`;
/** "1.50 s" as an axis says it: "1.5 s". */
const tidy = (text) => text.replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");

/**
 * `series` are {name, className, at}: `at` is the column of the points, whose first is seconds since the epoch. A missing
 * value is a gap, and so is a stretch of over `gap` seconds without a point. `marks` are values worth a line of their
 * own. `onRange(from, to)` hears of a range that is dragged.
 */
export class Lines {
  constructor(title, series, { format = short, area = false, marks = [], gap = null, onRange = null, least = 0 } = {}) {
    Object.assign(this, { title, series, format, area, marks, gap, onRange, least, points: [], span: null });
    this.tip = h("div.tip", { hidden: true });
    this.none = h("p.none", { hidden: true }, "nothing to show yet");
    this.place = h("div.chart", { role: "img", "aria-label": title });
    this.plot = h("div.plot", {}, this.place, this.none, this.tip);
    this.zone = h("span.zone");
    this.element = h("figure.figure", {}, h("figcaption", {}, h("h2", {}, title),
      h("span.legend", {}, series.map((each) => h("span", {}, h(`i.key.${each.className}`), each.name)), this.zone)), this.plot);
    this.place.addEventListener("mouseleave", () => { this.tip.hidden = true; });
    let size = "";
    new ResizeObserver(() => {
      const now = `${this.place.clientWidth} ${this.place.clientHeight}`;
      if (now !== size && this.place.clientWidth) { size = now; this.resize(); }
    }).observe(this.place);
  }

  /** Shows `points`; `span` is [from, to] in seconds, or null for all there is. */
  draw(points, span = null) {
    this.points = points;
    this.span = span;
    const values = points.flatMap((p) => this.series.map((each) => p[each.at])).filter((v) => v !== null && v !== undefined);
    this.none.hidden = values.length > 0;
    this.place.setAttribute("aria-label", `${this.title}: ${values.length ? this.words() : "nothing to show yet"}`);
    this.zone.textContent = zone();
    if (this.chart) this.chart.setData(this.data(), true);
    else this.build();
  }

  /** The chart for who cannot see it: each line's last and highest value. */
  words() {
    return this.series.map((each) => {
      const values = this.points.map((p) => p[each.at]).filter((v) => v !== null && v !== undefined);
      return values.length ? `${each.name} ${this.format(values.at(-1))}, at most ${this.format(values.reduce((a, b) => Math.max(a, b)))}` : `${each.name} unknown`;
    }).join("; ");
  }

  data() {
    const rows = [];
    for (const point of this.points) {
      const last = rows.at(-1);
      if (this.gap && last && point[0] - last[0] > this.gap) rows.push([last[0] + this.gap / 2]);
      rows.push(point);
    }
    return [rows.map((row) => row[0]), ...this.series.map((each) => rows.map((row) => row[each.at] ?? null))];
  }

  resize() {
    if (!this.chart) return this.build();
    this.chart.setSize({ width: this.place.clientWidth, height: this.place.clientHeight });
  }

  build() {
    const { clientWidth: width, clientHeight: height } = this.place;
    if (!width || !height || !this.points.length) return;
    this.chart?.destroy();
    shown();
    charts.add(this);
    const soft = colour("soft"), line = colour("line");
    const axis = { stroke: soft, font: "12px system-ui, sans-serif", grid: { stroke: line, width: 1 }, ticks: { show: false } };
    const paint = (each) => colour(each.className);
    this.chart = new uPlot({
      width, height, padding: [8, 24, 0, 0], legend: { show: false }, focus: { alpha: 1 },
      cursor: { drag: { x: Boolean(this.onRange), y: false, setScale: false }, points: { size: 6 }, y: false },
      scales: {
        x: { time: true, range: (u) => this.span || ends(u.data[0]) },
        y: { range: (u, min, max) => [0, Math.max(this.least, max ?? 0, ...this.marks.filter((mark) => mark < 1.6 * (max ?? 0)), 1e-9) * 1.08] },
      },
      axes: [
        { ...axis, size: 30, space: 84, values: (u, splits, i, space, step) => splits.map((each) => step < 60 ? clock(each) : minute(each, step >= 3600 * 6)) },
        { ...axis, size: (u, labels) => 16 + 7 * Math.max(6, ...(labels || []).map((each) => each.length)), space: 36, values: (u, splits) => splits.map((each) => tidy(this.format(each))) },
      ],
      series: [{}, ...this.series.map((each) => ({
        label: each.name, stroke: paint(each), width: 2, spanGaps: false,
        fill: this.area ? `${paint(each)}1f` : undefined,
        points: { show: (u, at, from, to) => to - from < 2 || alone(u.data[at]), size: 5, fill: paint(each) },
      }))],
      hooks: {
        setCursor: [() => this.point()],
        setSelect: [() => this.select()],
        draw: [(u) => this.mark(u)],
      },
    }, this.data(), this.place);
  }

  mark(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = colour("warn");
    ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const mark of this.marks.filter((each) => each < u.scales.y.max)) {
      const y = Math.round(u.valToPos(mark, "y", true));
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  point() {
    const { idx, left } = this.chart.cursor;
    if (idx === null || idx === undefined || left < 0) { this.tip.hidden = true; return; }
    const [times, ...columns] = this.chart.data;
    fill(this.tip, h("strong", {}, full(times[idx])),
      this.series.map((each, i) => h("div", {}, h(`i.key.${each.className}`), `${each.name} `, h("b", {}, columns[i][idx] === null ? "–" : this.format(columns[i][idx])))));
    this.tip.hidden = false;
    const from = this.chart.over.offsetLeft, beside = from + left + 14, width = this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, beside + width > this.place.clientWidth ? beside - 28 - width : beside)}px`;
  }

  select() {
    const { left, width } = this.chart.select;
    if (width < 4 || !this.onRange) return;
    this.onRange(this.chart.posToVal(left, "x"), this.chart.posToVal(left + width, "x"));
    this.chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  }
}

/** From the first time to the last: of a single one, uPlot itself would make years. */
const ends = (times) => times[0] === times.at(-1) ? [times[0] - 30, times[0] + 30] : [times[0], times.at(-1)];

/** Whether a value stands between two gaps: a line would not show it. */
const alone = (values) => values.length < 100 && values.some((v, i) => v !== null && (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null);
