// Drawing: the pipeline of DESIGN.md with live figures on it; lying where there is room, standing where there is none.

import { pressable } from "./charts.js";
import { s, count, rate } from "./dom.js";

/** Narrower than this, boxes and figures side by side would touch. */
const LEAST = 800;
const STAGES = ["decode", "predict", "encode", "audit"];
export const NODES = [["input", "Input"], ["decode", "Decode"], ["predict", "Predict"], ["encode", "Encode"], ["audit", "Audit"], ["output", "Results"]];

/** What went along each edge. The topics tell the ends; between steps, what ended later than there. */
function edges({ published, results, dead_letters: dead, rates, on_their_way }) {
  const along = [];
  let n = results, speed = rates.results;
  for (const stage of [null, "audit", "encode", "predict"]) {
    n += dead[stage] || 0;
    speed += rates.dead_letters[stage] || 0;
    along.unshift({ n, speed });
  }
  along.unshift(on_their_way === null ? { n: null, speed: null } : { n: published, speed: rates.published });
  return along;
}

/**
 * `width` is that of its place: letters are drawn in their true size. `pick(step)` hears which step is pressed, and
 * `windows()` that the windows are; without it there are none.
 */
export function draw(figures, width, step, pick, windows) {
  const dead = Object.values(figures.dead_letters).reduce((a, b) => a + b, 0);
  const along = edges(figures);
  const drops = STAGES.map((stage) => ({ n: figures.dead_letters[stage] || 0, speed: figures.rates.dead_letters[stage] || 0 }));
  const box = (id, x, y, wide, tall, label, more = "") => pressable(
    s(`g.node.${id}${more}${id === step ? ".chosen" : ""}`, { "data-key": `node ${id}`, "aria-pressed": String(id === step) }, s("rect", { x, y, width: wide, height: tall, rx: 10 }), s("text", { x: x + wide / 2, y: y + tall / 2 + 5 }, label)),
    `${label.trim()}: show what passed and what failed`, () => pick(id === step ? "" : id));
  const summed = (x, y, wide, tall) => pressable(
    s("g.node.windows", { "data-key": "node windows" }, s("rect", { x, y, width: wide, height: tall, rx: 10 }), s("text", { x: x + wide / 2, y: y + tall / 2 + 5 }, "Windows")),
    "Windows: show their summaries", windows);
  const shape = width < LEAST ? standing(Math.min(width, 340), along, drops, dead, box, windows && summed) : lying(Math.min(width, 1500), along, drops, dead, box, windows && summed);
  return s("svg.flow", { viewBox: `0 0 ${shape.width} ${shape.height}`, width: shape.width, height: shape.height, role: "group", "aria-label": `The pipeline: ${count(figures.results)} results, ${count(dead)} dead letters` },
    s("defs", {}, arrow("arrow"), arrow("arrow-bad")), shape.parts);
}

const arrow = (id) => s("marker", { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0,0L8,4L0,8Z" }));
const words = (speed) => speed === null ? "" : `${rate(speed)}/s`;
/** A count that fits between two boxes. */
const fits = (n) => n >= 1e6 ? `${(n / 1e6).toFixed(2)}M` : count(n);
const line = (x1, y1, x2, y2, speed, bad) => s(`line.edge${speed > 0 ? ".moving" : ""}`, { x1, y1, x2, y2, "marker-end": bad ? "url(#arrow-bad)" : "url(#arrow)" });

function lying(width, along, drops, dead, box, summed) {
  const wide = width < 1000 ? 84 : 112, tall = 48, gap = (width - 6 * wide) / 5, top = 14, low = 142;
  const x = (place) => place * (wide + gap);
  return { width, height: 186, parts: [
    along.map(({ n, speed }, i) => {
      const from = x(i) + wide, to = x(i + 1), y = top + tall / 2;
      return s("g", {}, line(from + 4, y, to - 6, y, speed),
        s("text.edge-count", { x: (from + to) / 2 - 3, y: y - 9 }, fits(n)), s("text.edge-rate", { x: (from + to) / 2 - 3, y: y + 19 }, words(speed)));
    }),
    drops.map(({ n, speed }, i) => {
      const at = x(i + 1) + wide / 2, y = (top + tall + low) / 2;
      return s(`g${n ? ".failing" : ".quiet"}`, {}, line(at, top + tall + 4, at, low - 5, 0, n),
        s("text.edge-count.left", { x: at + 10, y: y + 3 }, fits(n), n > 0 && s("tspan.edge-rate", { dx: 6 }, words(speed))));
    }),
    NODES.map(([id, label], place) => box(id, x(place), top, wide, tall, label)),
    box("dead", x(1), low, x(4) + wide - x(1), 40, `Dead letters  ${count(dead)}`, dead ? "" : ".none"),
    summed && s("g.quiet", {}, line(x(5) + wide / 2, top + tall + 4, x(5) + wide / 2, low - 5, 0), line(x(4) + wide + 4, low + 20, x(5) - 6, low + 20, 0)),
    summed && summed(x(5), low, wide, 40),
  ] };
}

function standing(width, along, drops, dead, box, summed) {
  const wide = 100, tall = 42, gap = 44, side = 106;
  const y = (place) => place * (tall + gap) + 2;
  const shown = box("dead", width - side, y(1), side, y(4) + tall - y(1), "Dead letters", dead ? "" : ".none");
  shown.append(s("text.big", { x: width - side / 2, y: y(2) + tall + gap / 2 + 36 }, fits(dead)));
  return { width, height: y(5) + tall + 2, parts: [
    along.map(({ n, speed }, i) => {
      const from = y(i) + tall, middle = from + gap / 2 + 4;
      return s("g", {}, line(wide / 2, from + 3, wide / 2, y(i + 1) - 6, speed),
        s("text.edge-count.left", { x: wide / 2 + 12, y: middle }, fits(n), s("tspan.edge-rate", { dx: 7 }, words(speed))));
    }),
    drops.map(({ n }, i) => {
      const middle = y(i + 1) + tall / 2;
      return s(`g${n ? ".failing" : ".quiet"}`, {}, line(wide + 4, middle, width - side - 6, middle, 0, n),
        s("text.edge-count", { x: (wide + width - side) / 2, y: middle - 8 }, fits(n)));
    }),
    NODES.map(([id, label], place) => box(id, 0, y(place), wide, tall, label)),
    shown,
    summed && s("g.quiet", {}, line(wide + 4, y(5) + tall / 2, width - side - 6, y(5) + tall / 2, 0), line(width - side / 2, y(4) + tall + 3, width - side / 2, y(5) - 6, 0)),
    summed && summed(width - side, y(5), side, tall),
  ] };
}
