// Elements from data. Text only ever goes in as text nodes: nothing that came in a message is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** h("p.note", {title: "…"}, "text", child, …): an element; null and false children are left out. */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(name(tag)), tag, attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name(tag)), tag, attributes, children);
}

const name = (tag) => tag.split(".")[0] || "div";

function build(element, tag, attributes, children) {
  const classes = tag.split(".").slice(1);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

export function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Puts `children` in place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
}

/** Runs `redraw`, and puts the keyboard's focus back on what has the same data-key as what had it before. */
export function keepFocus(root, redraw) {
  const key = root.contains(document.activeElement) && document.activeElement.dataset.key;
  redraw();
  if (key) [...root.querySelectorAll("[data-key]")].find((each) => each.dataset.key === key)?.focus({ preventScroll: true });
}

export function count(n) {
  return n === null || n === undefined ? "–" : Math.round(n).toLocaleString("en");
}

export function rate(n) {
  return n === null || n === undefined ? "–" : n >= 100 || n === 0 ? count(n) : n.toFixed(1);
}

export function ms(n) {
  if (n === null || n === undefined) return "–";
  if (n === 0) return "0";
  if (n < 10) return `${n.toFixed(1)} ms`;
  if (n < 1000) return `${Math.round(n)} ms`;
  if (n < 60_000) return `${(n / 1000).toFixed(n < 10_000 ? 2 : 1)} s`;
  return `${Math.floor(n / 60_000)} min ${Math.round((n % 60_000) / 1000)} s`;
}

export function share(part, whole) {
  return whole ? `${(100 * part / whole).toFixed(part / whole < 0.1 ? 1 : 0)} %` : "–";
}

export function clock(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : "–";
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  for (const unit of ["B", "KB", "MB", "GB"]) {
    if (n < 1000 || unit === "GB") return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
}

export function empty(title, ...words) {
  return h("div.empty", {}, h("strong", {}, title), h("p", {}, words));
}

export function card(title, note, ...children) {
  return h("section.card", {}, h("div.card-head", {}, h("h2", {}, title), note && h("span.note", {}, note)), children);
}

/** An answer's highest labels get the same colour everywhere on the page, by order of first appearance. */
const colours = new Map();
export function colourOf(label) {
  if (!colours.has(label)) colours.set(label, colours.size % 8 + 1);
  return `c${colours.get(label)}`;
}

export function chip(label) {
  return h(`span.chip.${colourOf(label)}`, { title: label }, label);
}
