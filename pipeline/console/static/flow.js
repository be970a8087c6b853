// Flow: the job's figures over time and its batches, under the drawing.

import { about } from "./api.js";
import { Lines } from "./charts.js";
import { draw, narrow } from "./drawing.js";
import { h, fill, card, count, rate, ms, share, empty } from "./dom.js";

let drawing, tiles, batches, charts;

export function start(root, state) {
  drawing = h("div.drawing");
  tiles = h("div.tiles");
  batches = h("div");
  charts = [
    new Lines("Messages a second", [
      { name: "results", className: "c1", at: 2 }, { name: "dead letters", className: "bad", at: 3 }, { name: "published", className: "c0", at: 1 },
    ], { area: true }),
    new Lines("Latency over ten seconds", [
      { name: "p50", className: "c1", at: 4 }, { name: "p95", className: "c3", at: 5 }, { name: "p99", className: "c4", at: 6 },
    ], { format: ms }),
  ];
  narrow.onchange = () => state.figures && fill(drawing, draw(state.figures));
  fill(root, h("h1.sr", {}, "Flow"), tiles, h("section.card", {}, drawing), h("div.two", {}, charts.map((chart) => h("section.card", {}, chart.element))), batches);
}

export function update({ figures, points }) {
  const dead = Object.values(figures.dead_letters).reduce((a, b) => a + b, 0);
  const backlog = figures.on_their_way;
  fill(tiles,
    tile("Results", count(figures.results), `${rate(figures.rates.results)}/s`),
    tile("Dead letters", count(dead), dead ? `${share(dead, dead + figures.results)} of what ended` : "none", dead ? "bad" : ""),
    tile("On their way", count(backlog), backlog === null ? "the input is not watched" : figures.oldest_s ? `oldest ${ms(figures.oldest_s * 1000)}` : "nothing waits"),
    tile("Latency p50", ms(figures.latency.p50), "over the last minute"),
    tile("Latency p99", ms(figures.latency.p99), `p95 ${ms(figures.latency.p95)}`));
  fill(drawing, draw(figures));
  for (const chart of charts) chart.draw(points);
  fill(batches, batching(figures.metrics));
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
