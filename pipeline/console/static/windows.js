// Windows: one summary a window, against the windows before it.

import * as address from "./address.js";
import { about, get } from "./api.js";
import { stacked } from "./charts.js";
import { saveButtons } from "./copy.js";
import { h, fill, card, empty, count, ms, share } from "./dom.js";
import { chanceOf, verdict } from "./drift.js";
import { narrow, term } from "./filter.js";
import { Lines } from "./lines.js";
import { clock, full, inFilter, zone } from "./time.js";

const EVERY_MS = 5000, COLUMNS = 40;
let root, asked = 0, drawn = "";

export function start(element) {
  root = element;
  drawn = "";
  asked = 0;
  fill(root, h("h1.sr", {}, "Windows"), empty("Looking", "reading the summary table"));
}

export function leave() {
  root = null;
  drawn = "";
}

export function filtered() {
  asked = 0;
  update();
}

export async function update() {
  if (Date.now() < asked + EVERY_MS) return;
  asked = Date.now();
  const mine = root, { q } = address.read();
  try {
    const { windows } = await get(`/api/summaries?${new URLSearchParams({ q })}`);
    const key = JSON.stringify([windows, q]);
    if (key === drawn || mine !== root || q !== address.read().q) return;
    drawn = key;
    show(windows);
  } catch (error) {
    if (mine !== root) return;
    drawn = "";
    fill(root, h("h1.sr", {}, "Windows"), empty("The summary table cannot be read", error.message));
  }
}

const PANES = { early: "so far", recount: "recounted" };
const at = (text) => Date.parse(text) / 1000;

/** A column a window and a place for each that is missing, `step` seconds apart; the newest 40. */
function columnsOf(windows, step) {
  const columns = [];
  for (const w of windows.slice(-COLUMNS)) {
    const start = at(w.window_start), last = columns.at(-1);
    if (last && step) for (let time = Math.max(last.start + step, start - COLUMNS * step); time < start - step / 2; time += step) columns.push({ start: time, tick: clock(time), shares: {} });
    columns.push({ start, tick: clock(start), shares: w.labels || {} });
  }
  return columns.slice(-COLUMNS);
}

function show(windows) {
  const title = h("h1.sr", {}, "Windows");
  if (!windows) return fill(root, title, empty("No summary table", "Start the job and the console with --summary_table: each window is then a row with its counts, its labels, its latency, and how far it is from the ten before."));
  if (!windows.length && address.read().q) return fill(root, title, empty("No window fits the filter", "Here it knows since:, until:, label: and the number of a column, such as messages>100."));
  if (!windows.length) return fill(root, title, empty("No window has ended yet", `Summaries are written to ${about.names["summary table"]} once a window is over.`));
  const points = windows.map((w) => [at(w.window_start), w.psi_label, w.psi_score, w.psi_input_bytes, w.messages, w.dead_letters, w.latency_p50_ms, w.latency_p95_ms, w.latency_p99_ms]);
  const steps = points.slice(1).map((p, i) => p[0] - points[i][0]).sort((a, b) => a - b);
  const step = steps[Math.floor(steps.length / 2)];
  const onRange = (from, to) => narrow([`since:${inFilter(from)}`, `until:${inFilter(to + 1)}`]);
  const lines = (title, series, options) => { const chart = new Lines(title, series, { ...options, onRange, gap: 1.5 * (step || 60) }); setTimeout(() => chart.draw(points)); return h("section.card", {}, chart.element); };
  const columns = columnsOf(windows, step);
  const verdicts = windows.map((w, i) => verdict(w.psi_label, w.chance_label ?? chanceOf(windows, i)));
  return fill(root, title,
    h("div.two", {},
      h("section.card", {}, stacked("Labels by window", columns, zone(), (label) => narrow(term("label", label)))),
      lines("Drift: population stability index", [
        { name: "label", className: "c1", at: 1 }, { name: "score", className: "c3", at: 2 }, { name: "input length", className: "c2", at: 3 }], { marks: [0.1, 0.25], least: 0.1 }),
      lines("Messages", [{ name: "all", className: "c1", at: 4 }, { name: "dead letters", className: "bad", at: 5 }], { area: true }),
      lines("Latency", [{ name: "p50", className: "c1", at: 6 }, { name: "p95", className: "c3", at: 7 }, { name: "p99", className: "c4", at: 8 }], { format: ms })),
    h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Windows"), h("span.note", {}, "stability index of the labels: under 0.1 steady, over 0.25 shifted, where chance alone would not make it so"), saveButtons("windows", () => windows)),
      h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Windows" }, h("table", {},
        h("thead", {}, h("tr", {}, [[`Window, ${zone()}`], ["Messages", 1], ["Dead letters", 1], ["First label"], ["Score p50", 1], ["Latency p50", 1], ["p99", 1], ["Input p50", 1], ["PSI label", 1], ["Labels"]].map(([each, number]) => h(number ? "th.number" : "th", { scope: "col" }, each)))),
        h("tbody", {}, windows.map((w, i) => [w, verdicts[i]]).reverse().slice(0, 60).map(([w, [kind, words]]) => {
          const first = Object.entries(w.labels || {}).sort((a, b) => b[1] - a[1])[0];
          return h("tr", {}, h("td.short", { title: `${full(at(w.window_start))} to ${full(at(w.window_end))}` }, h("button.link", { type: "button", title: "results of this window", onclick: () => narrow([`since:${inFilter(at(w.window_start))}`, `until:${inFilter(at(w.window_end))}`], "results") }, `${clock(at(w.window_start))} – ${clock(at(w.window_end))}`), PANES[w.pane] && h("small", {}, ` ${PANES[w.pane]}`), w.variant && h("small", {}, ` ${w.variant}`)), h("td.number", {}, count(w.messages)), h("td.number", {}, count(w.dead_letters)),
            h("td.short", { dir: "auto" }, first ? `${first[0]} ${share(first[1], Object.values(w.labels).reduce((a, b) => a + b, 0))}` : "–"),
            h("td.number", {}, w.score_p50?.toFixed(3) ?? "–"), h("td.number", {}, ms(w.latency_p50_ms)), h("td.number", {}, ms(w.latency_p99_ms)), h("td.number", {}, w.input_bytes_p50 === null ? "–" : `${count(w.input_bytes_p50)} B`),
            h("td.number", {}, w.psi_label?.toFixed(3) ?? "–"), h("td.short", {}, kind && h(`span.pill.${kind}`, {}, words)));
        })))), windows.length > 60 && h("p.note", {}, `the newest 60 of ${count(windows.length)} are shown`)));
}
