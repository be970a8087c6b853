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

/** A share that does not pretend: 0.5 % is not 1 %. */
export function share(part, whole) {
  if (!whole) return "–";
  const percent = 100 * part / whole;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  return `${percent.toFixed(percent > 0 && percent < 10 || percent > 99 && percent < 100 ? 1 : 0)} %`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  for (const unit of ["B", "KB", "MB", "GB"]) {
    if (n < 1000 || unit === "GB") return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
}

/** Words for the end of a list that shows the first `most`; nothing where it shows all. */
export const left = (list, most, where = "", tag = "li.note") => list.length > most && h(tag, {}, `and ${count(list.length - most)} more${where}`);

/** The beginning of a text, with a mark where it was cut. */
export const cut = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

export function empty(title, ...words) {
  return h("div.empty", {}, h("strong", {}, title), h("p", {}, words));
}

/** What stands in place of a list whose filter was refused, or could not be asked. */
export const unasked = (error) => empty(error.away ? "Not known now" : "The filter does not work", error.message);

export function card(title, note, ...children) {
  return h("section.card", {}, h("div.card-head", {}, h("h2", {}, title), note && h("span.note", {}, note)), children);
}

/** A label has one colour everywhere on the page, and keeps it when the page is loaded again. */
const KEY = "colours", MOST = 300;
const colours = new Map(stored());
function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) || "[]");
    return found.filter((each) => Array.isArray(each) && typeof each[0] === "string" && each[1] >= 1 && each[1] <= 8);
  } catch {
    return [];
  }
}

export function colourOf(label) {
  if (!colours.has(label)) {
    if (colours.size >= MOST) colours.delete(colours.keys().next().value);
    colours.set(label, colours.size % 8 + 1);
    localStorage.setItem(KEY, JSON.stringify([...colours].filter(([each]) => each.length < 200)));
  }
  return `c${colours.get(label)}`;
}

/** A name from a message as a person can tell it from others: what turns the letters round, or is none, by its number. */
export function seen(name) {
  const told = name.replace(/[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return told.trim() ? told : "(blank)";
}

export function chip(label) {
  return h(`span.chip.${colourOf(label)}`, { title: label, dir: "auto" }, seen(label));
}

/** Words for a screen reader, said once and seen by nobody. */
export function announce(words) {
  const place = document.getElementById("said");
  if (place.textContent !== words) place.textContent = words;
}
