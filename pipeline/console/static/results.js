// Results: live, with the distributions of labels and scores, and a search.

import { get } from "./api.js";
import { bars, histogram } from "./charts.js";
import { h, fill, card, chip, clock, ms, count, empty } from "./dom.js";
import { openStory } from "./story.js";

const SHOWN = 100;
let list, labels, scores, head, box, state, paused;

export function start(root, given) {
  state = given;
  paused = false;
  box = h("input", { type: "search", id: "search", placeholder: "Id, key=value or words", "aria-label": "Search results", oninput: search });
  head = h("span.note");
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (!paused) show(state.newest);
  } }, "Pause");
  list = h("div.list", { role: "list" });
  labels = h("div");
  scores = h("div");
  fill(root, h("h1.sr", {}, "Results"), h("div.two", {}, labels, scores),
    h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Results"), head), h("div.toolbar", {}, box, pause), list));
  show(state.newest);
}

export function update({ figures, newest }, fresh) {
  const any = Object.keys(figures.labels).length;
  fill(labels, card("Labels", any ? "of the results kept" : null, any ? bars(figures.labels) : empty("No labels yet", "Tasks that classify have them.")));
  fill(scores, card("Score of the first label", null, figures.scores.some(Boolean) ? histogram("Scores", figures.scores) : empty("No scores yet", "They show how sure the model is.")));
  if (box.value.trim()) return;
  head.textContent = `${count(figures.results)} since ${clock(figures.since)}; the newest ${SHOWN} are shown`;
  if (!paused && (fresh.length || !list.childElementCount)) prepend(fresh, newest);
}

/** New rows go on top and old ones leave: the page's size does not grow with the stream. */
function prepend(fresh, newest) {
  if (!list.querySelector(".item") || fresh.length >= SHOWN) return show(newest);
  list.prepend(...fresh.map(row));
  while (list.childElementCount > SHOWN) list.lastChild.remove();
}

function show(results) {
  if (results.length) fill(list, results.slice(0, SHOWN).map(row));
  else fill(list, box.value.trim() ? empty("Nothing found", "The console keeps the newest 20,000 messages; older ones are in the audit table.") : empty("No results yet", "They appear here as the job publishes them."));
}

const row = (result) => h("button.item", { type: "button", role: "listitem", onclick: () => openStory(result.message_id) },
  h("span.when", {}, clock(result.ended)),
  h("span.what", {}, result.input ?? `message ${result.message_id}`),
  h("span.said", {}, result.label !== null ? chip(result.label) : h("code", {}, (result.prediction || "").slice(0, 60)),
    result.score !== null && h("small", {}, `${(100 * result.score).toFixed(1)} %`)),
  h("span.took", {}, ms(result.latency_ms)));

let asked = 0;
async function search() {
  const words = box.value.trim(), mine = ++asked;
  if (!words) return show(state.newest);
  await new Promise((done) => setTimeout(done, 150));
  if (mine !== asked) return;
  try {
    const found = await get(`/api/results?q=${encodeURIComponent(words)}`);
    if (mine !== asked) return;
    head.textContent = `${count(found.count)} found${found.count > SHOWN ? `; the newest ${SHOWN} are shown` : ""}`;
    show(found.results);
  } catch (error) {
    fill(list, empty("The search failed", error.message));
  }
}
