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

/** `width` is that of its place: letters are drawn in their true size. `pick(step)` hears which step is pressed. */
export function draw(figures, width, step, pick) {
  const dead = Object.values(figures.dead_letters).reduce((a, b) => a + b, 0);
  const along = edges(figures);
  const drops = STAGES.map((stage) => ({ n: figures.dead_letters[stage] || 0, speed: figures.rates.dead_letters[stage] || 0 }));
  const box = (id, x, y, wide, tall, label, more = "") => pressable(
    s(`g.node.${id}${more}${id === step ? ".chosen" : ""}`, { "data-key": `node ${id}`, "aria-pressed": String(id === step) }, s("rect", { x, y, width: wide, height: tall, rx: 10 }), s("text", { x: x + wide / 2, y: y + tall / 2 + 5 }, label)),
    `${label.trim()}: show what passed and what failed`, () => pick(id === step ? "" : id));
  const summed = (x, y, wide) => !figures.windows ? null : pressable(
    s("g.node.windows", { "data-key": "node windows" }, s("rect", { x, y, width: wide, height: 44, rx: 10 }), s("text", { x: x + wide / 2, y: y + 18 }, "Windows"),
      s(`text.node-note${figures.windows.shifted ? ".shifted" : ""}`, { x: x + wide / 2, y: y + 35 }, panes(figures.windows))),
    `Windows, ${panes(figures.windows)}: show them`, () => pick("windows"));
  const shape = width < LEAST ? standing(Math.min(width, 340), along, drops, dead, box, summed) : lying(Math.min(width, 1500), along, drops, dead, box, summed);
  return s("svg.flow", { viewBox: `0 0 ${shape.width} ${shape.height}`, width: shape.width, height: shape.height, role: "group", "aria-label": `The pipeline: ${count(figures.results)} results, ${count(dead)} dead letters` },
    s("defs", {}, arrow("arrow"), arrow("arrow-bad")), shape.parts);
}

const arrow = (id) => s("marker", { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0,0L8,4L0,8Z" }));
const words = (speed) => speed === null ? "" : `${rate(speed)}/s`;
/** A count that fits between two boxes. */
const fits = (n) => n >= 1e6 ? `${(n / 1e6).toFixed(2)}M` : count(n);
const line = (x1, y1, x2, y2, speed, bad) => s(`line.edge${speed > 0 ? ".moving" : ""}`, { x1, y1, x2, y2, "marker-end": bad ? "url(#arrow-bad)" : "url(#arrow)" });

/** What the job's metrics say of its windows; without them, nothing. */
const panes = ({ panes, shifted }) => shifted ? `${fits(shifted)} shifted` : panes === null ? "of event time" : `${fits(panes)} pane${panes === 1 ? "" : "s"}`;

function lying(width, along, drops, dead, box, summed) {
  const wide = width < 1000 ? 84 : 112, tall = 48, gap = (width - 6 * wide) / 5, top = 14, low = 142;
  const x = (place) => place * (wide + gap);
  const windows = summed(x(5), low, wide), ends = [x(5) + wide / 2, low + 22];
  return { width, height: 190, parts: [
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
    windows && s("g.quiet", {}, line(ends[0], top + tall + 4, ends[0], low - 5), line(x(4) + wide + 4, ends[1], x(5) - 6, ends[1])),
    NODES.map(([id, label], place) => box(id, x(place), top, wide, tall, label)),
    box("dead", x(1), low, x(4) + wide - x(1), 44, `Dead letters  ${count(dead)}`, dead ? "" : ".none"), windows,
  ] };
}

function standing(width, along, drops, dead, box, summed) {
  const wide = 100, tall = 42, gap = 44, side = 118;
  const y = (place) => place * (tall + gap) + 2;
  const shown = box("dead", width - side, y(1), side, y(4) + tall - y(1), "Dead letters", dead ? "" : ".none");
  shown.append(s("text.big", { x: width - side / 2, y: y(2) + tall + gap / 2 + 36 }, fits(dead)));
  const windows = summed(0, y(6), wide), across = y(6) + tall / 2;
  return { width, height: y(windows ? 6 : 5) + tall + 4, parts: [
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
    windows && s("g.quiet", {}, line(wide / 2, y(5) + tall + 3, wide / 2, y(6) - 6),
      s("path.edge", { d: `M${width - side / 2},${y(4) + tall + 3}V${across}H${wide + 6}`, "marker-end": "url(#arrow)" })),
    NODES.map(([id, label], place) => box(id, 0, y(place), wide, tall, label)),
    shown, windows,
  ] };
}
