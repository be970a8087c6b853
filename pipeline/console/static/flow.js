// Flow: the job, its drawing with figures on it, its rates and latencies over time, its batches.

import * as address from "./address.js";
import { about } from "./api.js";
import { draw } from "./drawing.js";
import { h, fill, keepFocus, card, count, rate, ms, share, empty } from "./dom.js";
import { narrow } from "./filter.js";
import * as job from "./job.js";
import { Lines } from "./lines.js";
import * as models from "./models.js";
import * as samples from "./samples.js";
import { inFilter } from "./time.js";

const RANGES = [[300, "5 min"], [900, "15 min"], [3600, "1 h"]];
const SMOOTH_S = 5;
let drawing, tiles, batches, charts, place, fleet, sampled, state, range = Number(localStorage.getItem("range")) || 300;

export function start(root, given) {
  state = given;
  place = h("section.card.job");
  fleet = h("section.card", { hidden: true });
  drawing = h("div.drawing");
  tiles = h("div.tiles");
  batches = h("div");
  sampled = h("div");
  samples.reset();
  const onRange = (from, to) => narrow([`since:${inFilter(from)}`, `until:${inFilter(to + 1)}`], "results");
  charts = [
    new Lines("Messages a second", [
      { name: "results", className: "c1", at: 2 }, { name: "dead letters", className: "bad", at: 3 }, { name: "published", className: "c0", at: 1 },
    ], { area: true, onRange, gap: 3, least: 1 }),
    new Lines("Latency over ten seconds", [
      { name: "p50", className: "c1", at: 4 }, { name: "p95", className: "c3", at: 5 }, { name: "p99", className: "c4", at: 6 },
    ], { format: ms, onRange, gap: 3 }),
  ];
  const ranges = h("div.tabs.ranges", { role: "group", "aria-label": "How far the charts go back" });
  const drawRanges = () => keepFocus(ranges, () => fill(ranges, RANGES.map(([seconds, name]) => h("button.tab", { type: "button", "data-key": name, "aria-pressed": String(seconds === range), onclick: () => { range = seconds; localStorage.setItem("range", seconds); drawRanges(); if (state.figures) drawCharts(); } }, name)),
    h("span.note", {}, "rates are means of five seconds; drag over a chart to see its results")));
  drawRanges();
  new ResizeObserver(() => state.figures && picture()).observe(drawing);
  fill(root, h("h1.sr", {}, "Flow"), place, fleet, tiles, h("section.card", {}, h("h2.sr", {}, "The pipeline"), drawing), sampled, ranges, h("div.two", {}, charts.map((chart) => h("section.card", {}, chart.element))), batches);
  samples.refresh(sampled);
}

/** The filter or the step has changed. */
export function filtered() {
  if (state.figures) picture();
  samples.refresh(sampled);
}

function picture() {
  const width = drawing.clientWidth;
  if (width) keepFocus(drawing, () => fill(drawing, draw(state.figures, width, address.read().step, (step) => address.go(step === "windows" ? { view: step, step: "" } : { step }))));
}

let drawnAs = "";
export function update({ figures }) {
  const dead = Object.values(figures.dead_letters).reduce((a, b) => a + b, 0);
  const backlog = figures.on_their_way;
  fill(tiles,
    tile("Results", count(figures.results), `${rate(figures.rates.results)}/s`),
    tile("Dead letters", count(dead), dead ? `${share(dead, dead + figures.results)} of what ended` : "none", dead ? "bad" : ""),
    tile("On their way", count(backlog), backlog === null ? "the input is not watched" : figures.oldest_s !== null ? `oldest ${ms(figures.oldest_s * 1000)}` : "nothing waits", backlog && ["silent", "gone"].includes(figures.job.state) ? "bad" : ""),
    tile("Latency p50", ms(figures.latency.p50), "over the last minute"),
    tile("Latency p99", ms(figures.latency.p99), `p95 ${ms(figures.latency.p95)}`));
  keepFocus(place, () => job.show(place, state));
  keepFocus(fleet, () => models.show(fleet, state));
  const key = JSON.stringify([figures.published, figures.results, figures.dead_letters, figures.rates, figures.windows, address.read().step]);
  if (key !== drawnAs || !drawing.childElementCount) { drawnAs = key; picture(); samples.refresh(sampled); }
  drawCharts();
  fill(batches, batching(figures.metrics));
}

function drawCharts() {
  const now = Math.floor(state.figures.now), points = smooth(state.points.slice(-range - SMOOTH_S));
  for (const chart of charts) chart.draw(points, [now - range, now]);
}

/** Rates as means of five seconds: single seconds only show the rhythm of requests. */
function smooth(points) {
  const sums = [0, 0, 0];
  return points.map((point, i) => {
    const old = i >= SMOOTH_S ? points[i - SMOOTH_S] : null, n = Math.min(i + 1, SMOOTH_S);
    const means = sums.map((sum, at) => (sums[at] = sum + point[at + 1] - (old ? old[at + 1] : 0)) / n);
    return [point[0], ...means, ...point.slice(4)];
  });
}

const tile = (name, value, note, kind = "") => h(`div.tile${kind && `.${kind}`}`, {}, h("span", {}, name), h("strong", {}, value), h("small", {}, note));

function batching(metrics) {
  if (!metrics) {
    return card("Batches", null, about.names["metrics file"]
      ? empty("The job has written no metrics yet", `to ${about.names["metrics file"]}`)
      : empty("Not known", "Start the job with --metrics_file and the console with the same file to see its batches."));
  }
  const c = metrics.counters, d = metrics.distributions;
  const forwards = c.forwards || 0, tokens = c.tokens || 0, padding = c.padding || 0, saved = c.padding_saved || 0;
  const batch = d.inference_request_batch_size, time = d.batch_ms, loads = d.model_load_ms;
  const figure = (name, value, note) => h("div.figure-row", {}, h("dt", {}, name), h("dd", {}, value, note && h("small", {}, note)));
  return card("Batches", metrics.age_s > 15 ? `as of ${ms(metrics.age_s * 1000)} ago` : "Beam's metrics of this job", h("dl.figures", {},
    figure("Mean batch from Beam", batch?.count ? batch.mean.toFixed(1) : "–", batch?.count ? `largest ${count(batch.max)}` : null),
    figure("Time of one", time?.count ? ms(time.mean) : "–", time?.count ? `longest ${ms(time.max)}` : null),
    c.requests !== undefined && figure("Requests", count(c.requests), `${count(c.retries || 0)} repeats, waited ${ms(c.throttled_ms || 0)}`),
    c.requests === undefined && figure("Mean micro-batch", forwards ? ((c.predictions || 0) / forwards).toFixed(1) : "–", `${count(forwards)} forwards`),
    c.requests === undefined && figure("Tokens", count(tokens), c.truncated ? `${count(c.truncated)} inputs cut` : "no input cut"),
    c.requests === undefined && figure("Padding", share(padding, tokens + padding), `${count(padding)} tokens`),
    c.requests === undefined && figure("Padding saved", saved || padding ? count(saved) : "–", "against batches of 32 in order"),
    figure("Model loads", count(loads?.count || 0), loads?.count ? ms(loads.mean) : null),
    figure("Bisections", count(c.bisections || 0), `${count(c.out_of_memory || 0)} out of memory`),
    figure("Sink retries", count((c.publish_retries || 0) + (c.insert_retries || 0)), "publishing and rows")));
}
