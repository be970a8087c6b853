// The one filter of the page: it stands in the address, clicks add to it, and every view is narrowed by it.

import * as address from "./address.js";
import { h, fill } from "./dom.js";

const HELP = [
  ["label:refund", "results of that label"], ["score<0.6", "and latency>500ms, age>5m"], ["stage:predict", "where a message failed; error:, reason:"],
  ["is:waiting", "dead letters: waiting, replayed, mended, dismissed"], ["variant:b", "model:, revision:, task:"], ["customer=4711", "an attribute of the message"],
  ["since:15m until:12:30", "a time range, in UTC"], ["\"not my order\"", "words of input, label or error"], ["-label:refund", "turns a term round"],
];

/** A name or a value as the language quotes it; a box of one line has no room for a line's end. */
const quoted = (text) => /^[\p{L}\p{M}\p{N}_.\/@][\p{L}\p{M}\p{N}_.\/@-]*$/u.test(text) ? text : `"${text.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n").replaceAll("\r", "\\r")}"`;
export const term = (field, value, op = ":") => `${quoted(field)}${op}${quoted(String(value))}`;

const TERMS = /-?(?:(?:"(?:[^"\\]|\\.)*"|[^\s"=<>:]+)(?:<=|>=|<|>|=|:))?(?:"(?:[^"\\]|\\.)*"|[^\s]+)/g;
export const termsOf = (q) => q.match(TERMS) || [];
/** What a term is about, its field and the kind of its sign; null for words. The attribute `label=` is not `label:`. */
const about = (text) => /^-?((?:"(?:[^"\\]|\\.)*"|[^\s"=<>:]+)[<>=:])/.exec(text)?.[1] ?? null;

/** Adds `terms` to the filter in place of those about the same, and goes to `view` if one is named. */
export function narrow(terms, view = null) {
  const added = [].concat(terms);
  const own = new Set(added.map(about));
  const kept = termsOf(address.read().q).filter((each) => !about(each) || !own.has(about(each)));
  address.go({ q: [...kept, ...added].join(" "), ...(view && { view, step: "" }) });
}

let box, chips, clear, shown = "", waiting = 0;

export function mount(element) {
  box = h("input", { type: "search", id: "search", dir: "auto", autocomplete: "off", spellcheck: "false", placeholder: "Filter: label:refund score<0.6 customer=4711 since:15m, or words", "aria-label": "Filter", oninput: () => {
    const mine = ++waiting;
    setTimeout(() => { if (mine === waiting) put(box.value); }, 150);
  } });
  clear = h("button", { type: "button", hidden: true, onclick: () => { put(""); box.value = ""; box.focus(); } }, "Clear");
  chips = h("div.terms");
  const help = h("details.help", {}, h("summary", {}, "Terms"), h("dl", {}, HELP.map(([each, words]) => h("div", {}, h("dt", {}, h("button.link", { type: "button", onclick: () => { narrow(each.split(/ (?=\w+:)/)); help.open = false; box.focus(); } }, each)), h("dd", {}, words)))));
  addEventListener("keydown", (event) => { if (event.key === "Escape" && help.open) { help.open = false; help.firstChild.focus(); } });
  fill(element, h("form.filter", { role: "search", onsubmit: (event) => { event.preventDefault(); put(box.value); } }, box, clear, help), chips);
  show();
}

function put(q) {
  address.go({ q: q.trim() }, true);
}

/** Puts the box in order with the address. */
export function show() {
  const { q } = address.read();
  if (!box || q === shown) return;
  shown = q;
  // What is being typed is the address already; anything else comes from a click, or from going back.
  if (box.value.trim() !== q) box.value = q;
  clear.hidden = !q;
  fill(chips, termsOf(q).length > 1 && termsOf(q).map((each) => h("button.term", { type: "button", title: "take this term out", onclick: () => { const rest = termsOf(address.read().q).filter((one) => one !== each).join(" "); box.value = rest; put(rest); } }, each, h("span", { "aria-hidden": "true" }, " ×"))));
}
