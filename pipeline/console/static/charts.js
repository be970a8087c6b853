// Bars, a histogram and stacked shares in the page's own colours. Lines over time are in lines.js.

import { h, s, count, fill, colourOf, seen, share } from "./dom.js";

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

/** A place for an SVG that is drawn in its true size, and again when that changes: letters keep theirs. */
function canvas(title, draw) {
  const svg = s("svg.chart", { role: "group", "aria-label": title });
  const again = () => {
    const { clientWidth: width, clientHeight: height } = svg;
    if (!width || !height) return;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    fill(svg, draw(width, height));
  };
  new ResizeObserver(again).observe(svg);
  return h("div.plot", {}, svg);
}

function grid(width, height, values, label = short) {
  const top = values.at(-1) || 1, floor = height - PAD.bottom;
  const y = (value) => floor - (floor - PAD.top) * value / top;
  const lines = values.map((value) => s("g", { "aria-hidden": "true" },
    s("line.grid", { x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }),
    s("text.tick.end", { x: PAD.left - 8, y: y(value) + 4 }, label(value))));
  return { y, floor, lines };
}

/** Something drawn that is pressed as a button is. */
export function pressable(element, name, action) {
  for (const [key, value] of Object.entries({ role: "button", tabindex: 0, "aria-label": name })) element.setAttribute(key, value);
  element.addEventListener("click", action);
  element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); action(); } });
  return element;
}

/**
 * Horizontal bars of {label: number}, the longest first. `all` is the sum that shares are of and `names` how many labels
 * it has, where `counts` are not all of them. `pick(label)` hears which one is pressed.
 */
export function bars(counts, { limit = 8, all = null, names = null, pick = null } = {}) {
  const entries = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const known = entries.reduce((sum, [, n]) => sum + n, 0), total = all ?? known;
  const most = entries[0]?.[1] || 1, others = (names ?? entries.length) - Math.min(limit, entries.length);
  const rest = total - entries.slice(0, limit).reduce((sum, [, n]) => sum + n, 0);
  const shown = entries.slice(0, limit).map(([label, n]) => row(label, n, colourOf(label), pick));
  if (rest > 0) shown.push(row(`${count(others)} other${others === 1 ? "" : "s"}`, rest, "c0"));
  return h("ul.bars", {}, shown);

  function row(label, n, className, pick) {
    const bar = h(`i.bar.${className}`);
    bar.style.width = `${Math.max(0.5, Math.min(100, 100 * n / most))}%`;
    const name = pick ? h("button.bar-label", { type: "button", dir: "auto", title: `${label}: show these`, "data-key": `bar ${label}`, onclick: () => pick(label) }, seen(label)) : h("span.bar-label", { dir: "auto", title: label }, seen(label));
    return h("li.bar-row", {}, name, h("span.bar-track", {}, bar), h("span.bar-value", {}, count(n), h("small", {}, ` ${share(n, total)}`)));
  }
}

/** A histogram of equal bins from 0 to 1; `pick(from, to)` hears which one is pressed. */
export function histogram(title, bins, pick) {
  return canvas(title, (width, height) => {
    const { y, floor, lines } = grid(width, height, axis(Math.max(...bins), true));
    const each = (width - PAD.left - PAD.right) / bins.length;
    return [lines,
      bins.map((n, i) => n > 0 && pressable(s("rect.column.c1", { "data-key": `bin ${i}`, x: PAD.left + i * each + 1.5, y: Math.min(y(n), floor - 1.5), width: Math.max(1, each - 3), height: Math.max(1.5, floor - y(n)), rx: 2 },
        s("title", {}, `${(i / bins.length).toFixed(2)} to ${((i + 1) / bins.length).toFixed(2)}: ${count(n)}`)), `scores from ${(i / bins.length).toFixed(2)} to ${((i + 1) / bins.length).toFixed(2)}: ${count(n)}; show these`, () => pick(i / bins.length, (i + 1) / bins.length))),
      [0, 0.5, 1].map((part, place) => s(`text.tick.${["start", "middle", "end"][place]}`, { "aria-hidden": "true", x: PAD.left + part * (width - PAD.left - PAD.right), y: height - 5 }, part.toFixed(1)))];
  });
}

/** Shares over time: a column for each of `columns`, {tick, shares: {label: n}}. */
export function stacked(title, columns, note, pick) {
  const sums = new Map(); // no object: a label may be called "constructor"
  for (const column of columns) for (const [label, n] of Object.entries(column.shares)) sums.set(label, (sums.get(label) || 0) + n);
  const labels = [...sums.keys()].sort((a, b) => sums.get(b) - sums.get(a) || (a < b ? -1 : 1));
  const plot = canvas(title, (width, height) => {
    const { y, lines } = grid(width, height, [0, 0.25, 0.5, 0.75, 1], (v) => `${v * 100} %`);
    const each = Math.min(56, (width - PAD.left - PAD.right) / Math.max(1, columns.length));
    const pieces = columns.flatMap((column, i) => {
      const total = Object.values(column.shares).reduce((a, b) => a + b, 0);
      let below = 0;
      return labels.filter((label) => Object.hasOwn(column.shares, label) && column.shares[label]).map((label) => {
        const part = column.shares[label] / total;
        const piece = s(`rect.column.${colourOf(label)}`, { x: PAD.left + i * each + 1, y: y(below + part), width: Math.max(1, each - 2), height: Math.max(0, y(below) - y(below + part) - 1) },
          s("title", {}, `${column.tick} ${label}: ${count(column.shares[label])} (${share(column.shares[label], total)})`));
        below += part;
        return piece;
      });
    });
    const ends = columns.length * each < 150 ? [0] : [0, columns.length - 1];
    return [lines, pieces, columns.length > 0 && ends.map((i) => s(`text.tick.${i ? "end" : "start"}`, { "aria-hidden": "true", x: PAD.left + (i ? i + 1 : 0) * each, y: height - 5 }, columns[i].tick))];
  });
  return h("figure.figure", {}, h("figcaption", {}, h("h2", {}, title), h("span.legend", {}, labels.slice(0, 10).map((label) => h("button.legend-item", { type: "button", dir: "auto", title: `${label}: show these`, onclick: () => pick(label) }, h(`i.key.${colourOf(label)}`), seen(label))), labels.length > 10 && h("span", {}, `and ${labels.length - 10} more`), h("span.zone", {}, note))), plot);
}
