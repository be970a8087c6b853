// Results: live, with the distributions of labels and scores; narrowed by the page's filter.

import * as address from "./address.js";
import { get } from "./api.js";
import { bars, histogram } from "./charts.js";
import { saveButtons } from "./copy.js";
import { h, fill, keepFocus, card, chip, cut, ms, count, empty, unasked } from "./dom.js";
import { narrow, term } from "./filter.js";
import { thumbnail } from "./pictures.js";
import { storyLink } from "./story.js";
import { clock, full, zone } from "./time.js";

const SHOWN = 100;
let list, labels, scores, head, state, paused, drawn, shown = [], asked = 0;

export function start(root, given) {
  state = given;
  paused = false;
  drawn = "";
  head = h("span.note");
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (!paused) refresh();
  } }, "Pause");
  list = h("ul.list");
  labels = h("div");
  scores = h("div");
  fill(root, h("h1.sr", {}, "Results"), h("div.two", {}, labels, scores),
    h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Results"), head, saveButtons("results", () => shown, pause)),
      h("div.list-head", { "aria-hidden": "true" }, h("span", {}, zone()), h("span", {}, "what came in"), h("span", {}, "what came out"), h("span", {}, "latency")), list));
  filtered();
}

export function leave() {
  turn++;
  shown = [];
}

const filter = () => address.read().q;

/** The filter has changed. */
export function filtered() {
  refresh();
}

export function update({ figures, newest }, fresh) {
  if (!filter()) distributions(figures);
  if (paused) return;
  if (filter()) { if (fresh.length || figures.results !== asked) refresh(); return; }
  head.textContent = `${count(figures.results)} since ${full(figures.since)}; the newest ${SHOWN} are shown`;
  if (fresh.length || !list.childElementCount) prepend(fresh, newest);
}

/** Labels and scores of all results that are kept, or of those that fit the filter. */
function distributions(found) {
  const key = JSON.stringify([found.labels, found.labels_all, found.scores, !filter()]);
  if (key === drawn) return;
  drawn = key;
  const any = found.labels_all.results, of = filter() ? "that fit the filter and have one" : "results kept that have one";
  keepFocus(labels, () => fill(labels, card("Labels", any ? `of the ${count(any)} ${of}` : null, any
    ? bars(found.labels, { all: any, names: found.labels_all.labels, pick: (label) => narrow(term("label", label)) }) : empty("No labels yet", "Tasks that classify have them."))));
  keepFocus(scores, () => fill(scores, card("Score of the first label", null, found.scores.some(Boolean)
    ? histogram("Scores", found.scores, (from, to) => narrow([`score>=${from.toFixed(2)}`, to >= 1 ? "score<=1" : `score<${to.toFixed(2)}`])) : empty("No scores yet", "They show how sure the model is."))));
}

/** New rows go on top and old ones leave: the page's size does not grow with the stream. */
function prepend(fresh, newest) {
  if (!list.querySelector(".item") || fresh.length >= SHOWN) return show(newest);
  shown = newest.slice(0, SHOWN);
  list.prepend(...fresh.map(row));
  while (list.childElementCount > SHOWN) list.lastChild.remove();
}

function show(results) {
  shown = results.slice(0, SHOWN);
  keepFocus(list, () => {
    if (results.length) fill(list, shown.map(row));
    else fill(list, h("li", {}, filter() ? empty("Nothing fits the filter", "The console keeps the newest 20,000 messages; older ones are in the audit table.") : empty("No results yet", "Each will be a row: what came in, what the model said of it, how sure it was and how long it took.")));
  });
}

/** A row is a link to its message; the label in it narrows the page to its like. */
export const row = (result) => h("li.item", {},
  h("span.when", { title: full(result.ended) }, clock(result.ended)),
  h("span.what", { dir: "auto" }, thumbnail(result), storyLink(result.message_id, result.input ?? `message ${result.message_id}`)),
  h("span.said", {}, result.label !== null ? h("button.plain", { type: "button", title: `${result.label}: show these`, onclick: () => narrow(term("label", result.label), "results") }, chip(result.label)) : h("code", { dir: "auto" }, cut(result.prediction || "", 60)),
    result.score !== null && h("small", {}, `${(100 * result.score).toFixed(1)} %`)),
  h("span.took", {}, ms(result.latency_ms)));

let turn = 0;
async function refresh() {
  const words = filter(), mine = ++turn;
  if (!words) {
    show(state.newest);
    if (state.figures) distributions(state.figures);
    if (state.figures) head.textContent = `${count(state.figures.results)} since ${full(state.figures.since)}; the newest ${SHOWN} are shown`;
    return;
  }
  asked = state.figures?.results ?? 0;
  try {
    const found = await get(`/api/results?q=${encodeURIComponent(words)}`);
    if (mine !== turn) return;
    head.textContent = `${count(found.count)} found${found.count > SHOWN ? `; the newest ${SHOWN} are shown` : ""}`;
    distributions(found);
    show(found.results);
  } catch (error) {
    if (mine !== turn) return;
    head.textContent = "";
    fill(list, h("li", {}, unasked(error)));
  }
}
