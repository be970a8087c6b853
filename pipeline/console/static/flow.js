// Flow: the pipeline as a drawing with live figures on it, and charts over time.

import { about } from "./api.js";
import { Lines, bars } from "./charts.js";
import { h, s, fill, card, count, rate, ms, share, empty } from "./dom.js";

let drawing, tiles, batches, charts, stages;

export function start(root, state) {
  drawing = h("div.drawing");
  tiles = h("div.tiles");
  batches = h("div");
  stages = h("div");
  charts = [
    new Lines("Messages a second", [
      { name: "published", className: "c0", at: 1 }, { name: "results", className: "c1", at: 2 }, { name: "dead letters", className: "bad", at: 3 },
    ], { area: true }),
    new Lines("Latency over ten seconds", [
      { name: "p50", className: "c1", at: 4 }, { name: "p95", className: "c3", at: 5 }, { name: "p99", className: "c4", at: 6 },
    ], { format: ms }),
  ];
  fill(root, h("h1.sr", {}, "Flow"), tiles, h("section.card", {}, drawing), h("div.two", {}, charts.map((chart) => h("section.card", {}, chart.element))),
    h("div.two", {}, batches, stages));
}

export function update({ figures, points }) {
  const dead = Object.values(figures.dead_letters).reduce((a, b) => a + b, 0);
  const backlog = figures.on_their_way;
  fill(tiles,
    tile("Results", count(figures.results), `${rate(figures.rates.results)}/s`),
    tile("Dead letters", count(dead), share(dead, dead + figures.results), dead ? "bad" : ""),
    tile("On their way", count(backlog), backlog === null ? "the input is not watched" : figures.oldest_s ? `oldest ${ms(figures.oldest_s * 1000)}` : "nothing waits"),
    tile("Latency p50", ms(figures.latency.p50), "over the last minute"),
    tile("Latency p99", ms(figures.latency.p99), `p95 ${ms(figures.latency.p95)}`));
  fill(drawing, draw(figures, dead));
  for (const chart of charts) chart.draw(points);
  fill(batches, batching(figures.metrics));
  fill(stages, card("Dead letters by stage", "since the console started", dead
    ? bars(Object.fromEntries(Object.entries(figures.dead_letters).filter(([, n]) => n)), 8, () => "bad")
    : empty("None", "Every message that ended became a result.")));
}

const tile = (name, value, note, kind = "") => h(`div.tile${kind && `.${kind}`}`, {}, h("span", {}, name), h("strong", {}, value), h("small", {}, note));

const BOXES = [
  ["input", "Input", 0], ["decode", "Decode", 1], ["predict", "Predict", 2], ["encode", "Encode", 3], ["audit", "Audit", 4], ["output", "Results", 5],
];

/** The drawing of DESIGN.md. A figure on an edge is what the topics carried; between steps, what is left of it. */
function draw(figures, dead) {
  const width = 980, box = 118, height = 46, gap = (width - 6 * box - 20) / 5, top = 34, low = 150;
  const x = (place) => 10 + place * (box + gap);
  const watched = figures.on_their_way !== null;
  const failures = figures.dead_letters;
  const passed = [];
  let left = figures.results + dead;
  passed.push(watched ? figures.published : null);
  for (const stage of ["decode", "predict", "encode", "audit"]) passed.push(left -= failures[stage] || 0);
  passed[4] = figures.results;
  const moving = figures.rates.results + figures.rates.dead_letters > 0;
  const edges = passed.map((n, i) => {
    const from = x(i) + box, to = x(i + 1);
    return s("g", {},
      s(`line.edge${moving ? ".moving" : ""}`, { x1: from + 3, y1: top + height / 2, x2: to - 5, y2: top + height / 2, "marker-end": "url(#arrow)" }),
      s("text.edge-count", { x: (from + to) / 2, y: top + height / 2 - 9 }, count(n)));
  });
  const drops = ["decode", "predict", "encode", "audit"].map((stage, i) => {
    const at = x(i + 1) + box / 2, n = failures[stage] || 0;
    return s(`g${n ? ".failing" : ".quiet"}`, {},
      s("line.edge", { x1: at, y1: top + height + 3, x2: at, y2: low - 4, "marker-end": n ? "url(#arrow-bad)" : "url(#arrow)" }),
      s("text.edge-count.left", { x: at + 9, y: (top + height + low) / 2 + 4 }, count(n)));
  });
  const nodes = BOXES.map(([id, label, place]) => s(`g.node.${id}`, {},
    s("rect", { x: x(place), y: top, width: box, height, rx: 10 }),
    s("text", { x: x(place) + box / 2, y: top + height / 2 + 5 }, label)));
  const rates = [[0, `${rate(figures.rates.published)}/s in`, watched], [5, `${rate(figures.rates.results)}/s out`, true]]
    .filter(([, , known]) => known).map(([place, words]) => s("text.edge-count", { x: x(place) + box / 2, y: top - 12 }, words));
  const letters = s("g.node.dead", {},
    s("rect", { x: x(1), y: low, width: x(4) + box - x(1), height: 40, rx: 10 }),
    s("text", { x: (x(1) + x(4) + box) / 2, y: low + 25 }, `Dead letters  ${count(dead)}`));
  const arrow = (id) => s("marker", { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0,0L8,4L0,8Z" }));
  return s("svg.flow", { viewBox: `0 0 ${width} 204`, role: "img", "aria-label": `${count(figures.results)} results, ${count(dead)} dead letters` },
    s("defs", {}, arrow("arrow"), arrow("arrow-bad")), edges, drops, nodes, letters, rates);
}

function batching(metrics) {
  if (!metrics) {
    return card("Batches", null, about.names["metrics file"]
      ? empty("The job has written no metrics yet", `to ${about.names["metrics file"]}`)
      : empty("Not known", "Start the job with --metrics_file and the console with the same file to see its batches."));
  }
  const c = metrics.counters, d = metrics.distributions;
  const forwards = c.forwards || 0, tokens = c.tokens || 0, padding = c.padding || 0, saved = c.padding_saved || 0;
  const figure = (name, value, note) => h("div.figure-row", {}, h("dt", {}, name), h("dd", {}, value, note && h("small", {}, note)));
  return card("Batches", metrics.age_s > 15 ? `as of ${ms(metrics.age_s * 1000)} ago` : "Beam's metrics of this job", h("dl.figures", {},
    figure("Mean micro-batch", forwards ? ((c.predictions || 0) / forwards).toFixed(1) : "–", `${count(forwards)} forwards`),
    figure("Tokens", count(tokens), c.truncated ? `${count(c.truncated)} inputs cut` : "no input cut"),
    figure("Padding", share(padding, tokens + padding), `${count(padding)} tokens`),
    figure("Padding saved", saved || padding ? count(saved) : "–", "against batches of 32 as they came"),
    figure("Handler batch", d.batch_ms?.count ? ms(d.batch_ms.mean) : "–", d.batch_ms?.count ? `longest ${ms(d.batch_ms.max)}` : null),
    figure("Model loads", count(d.model_load_ms?.count || 0), d.model_load_ms?.count ? ms(d.model_load_ms.mean) : null),
    figure("Bisections", count(c.bisections || 0), `${count(c.out_of_memory || 0)} out of memory`),
    figure("Sink retries", count((c.publish_retries || 0) + (c.insert_retries || 0)), null)));
}
