// Dead letters as a workbench: by cause, a list that stands still, and what one does about them.

import * as address from "./address.js";
import { about, get } from "./api.js";
import { saveButtons } from "./copy.js";
import { h, fill, keepFocus, empty, count, cut, left, seen, unasked, announce } from "./dom.js";
import { narrow, term, termsOf } from "./filter.js";
import { picture } from "./pictures.js";
import { dismiss, edit, replay } from "./repair.js";
import { storyLink, thread } from "./story.js";
import { ago, full } from "./time.js";

const STATES = [["", "All"], ["waiting", "Waiting"], ["replayed", "On their way"], ["mended", "Mended"], ["dismissed", "Dismissed"]];
const PILLS = { waiting: "bad", replayed: "warn", mended: "good", dismissed: "quiet" };
let list, groups, bar, tabs, more, head, rows = new Map(), selected = new Set(), until = null, found = null, turn = 0, known = "", busy = false;

export function start(root) {
  tabs = h("div.tabs", { role: "group", "aria-label": "State" });
  groups = h("div.causes");
  bar = h("div.toolbar.bulk");
  more = h("button.more", { type: "button", hidden: true, onclick: () => { until = null; load(); } });
  list = h("ul.list.letters");
  head = h("h2", {}, "Dead letters");
  fill(root, h("h1.sr", {}, "Dead letters"), tabs,
    h("div.bench", {}, h("section.card", { "aria-label": "Causes" }, h("div.card-head", {}, h("h2", {}, "By cause")), groups),
      h("section.card", { "aria-label": "Dead letters" }, h("div.card-head", {}, head, saveButtons("dead-letters", () => [...rows.values()].map(({ steps, ...each }) => ({ ...each, steps })))), bar, more, list)));
  until = null;
  selected = new Set();
  load();
}

/** Another view is shown: nothing of this one is kept but what is chosen by the address. */
export function leave() {
  turn++;
  found = null;
  rows = new Map();
  drawn = "";
}

/** The filter has changed: the list is made anew, as of now. */
export function filtered() {
  until = null;
  selected.clear();
  load();
}

export function update({ figures }) {
  const key = JSON.stringify(figures.cases);
  const moving = [...rows.values()].some((each) => each.state === "replayed");
  if (key === known && !moving) return;
  known = key;
  if (found) refresh();
}

const ask = (more) => get(`/api/dead-letters?${new URLSearchParams({ q: address.read().q, ...(until !== null && { until }), ...more })}`);

/** The list from the beginning: it holds what fits now, and stands still from now on. */
async function load() {
  const mine = ++turn;
  try {
    const answer = await ask({});
    if (mine !== turn) return;
    found = answer;
    until = answer.until;
    rows = new Map(answer.letters.map((each) => [each.root, each]));
    draw();
  } catch (error) {
    if (mine !== turn) return;
    found = null;
    drawn = "";
    fill(list, h("li", {}, unasked(error)));
    fill(groups);
    fill(bar);
  }
}

/** What became of the rows that are shown, and how many came since; no row moves. */
async function refresh() {
  if (busy) return;
  const mine = turn;
  busy = true;
  try {
    const answer = await ask({ cases: [...rows.values()].map((each) => each.case).join(",") });
    if (mine !== turn) return;
    // An empty list has nothing that could move.
    if (!rows.size && answer.new) { until = null; load(); return; }
    found = answer;
    for (const each of answer.letters) if (rows.has(each.root)) rows.set(each.root, each);
    draw();
  } catch { /* the page says that the console is away */ } finally {
    busy = false;
  }
}

let drawn = "";
function draw() {
  const key = JSON.stringify([found, [...rows.values()], [...selected], address.read().q]);
  if (key === drawn && list.childElementCount) return;
  drawn = key;
  const { counts, count: fit } = found, q = address.read().q, terms = termsOf(q), state = terms.find((each) => each.startsWith("is:"))?.slice(3) || "";
  const total = STATES.reduce((sum, [each]) => sum + (counts[each] || 0), 0);
  keepFocus(tabs, () => fill(tabs, STATES.map(([each, name]) => h("button.tab", { type: "button", "data-key": `tab ${each}`, "aria-pressed": String(each === state), onclick: () => each ? narrow(term("is", each)) : address.go({ q: terms.filter((one) => !one.startsWith("is:")).join(" ") }) }, name, " ", h("b", {}, count(each ? counts[each] || 0 : total))))));
  keepFocus(groups, () => fill(groups, found.groups.length ? h("ul.causes-list", {}, found.groups.slice(0, 40).map(cause), left(found.groups, 40, " causes")) : h("p.note", {}, "Causes are told apart by stage, kind of error and reason.")));
  head.textContent = `${count(fit)} dead letter${fit === 1 ? "" : "s"}${q ? " that fit" : ""}`;
  more.hidden = !found.new;
  more.textContent = `${count(found.new)} more came in: show ${found.new === 1 ? "it" : "them"}`;
  keepFocus(bar, drawBar);
  if (!rows.size) fill(list, h("li", {}, total ? empty("Nothing fits the filter", "Take a term out, or look at all of them.") : empty("No dead letters", "A message that cannot become a result is shown here, with the reason and its own bytes.")));
  else keepFocus(list, () => fill(list, [...rows.values()].map(letter), fit > rows.size && h("li.note", {}, `and ${count(fit - rows.size)} older ones, which a filter finds`)));
}

function cause(group) {
  const terms = [term("stage", group.stage), term("error", group.error_type), term("reason", group.reason)];
  const now = termsOf(address.read().q), chosen = terms.every((each) => now.includes(each));
  return h("li.cause", {}, h("button.cause-name", { type: "button", "data-key": `cause ${terms.join(" ")}`, "aria-pressed": String(chosen), title: group.example, onclick: () => chosen ? address.go({ q: now.filter((one) => !terms.includes(one)).join(" ") }) : narrow(terms) },
    h("span.pill.bad", {}, group.stage), " ", h("strong", {}, group.error_type), h("span.reason", { dir: "auto" }, group.reason || "without a reason")),
  h("b.cause-count", { title: `${count(group.count)} in all, ${count(group.waiting)} waiting` }, count(group.count)),
  h("small.cause-note", {}, `${count(group.waiting)} waiting, last ${ago(group.last)}`));
}

/** What is chosen: the rows that are ticked, or all that fit. */
function chosen() {
  const ticked = [...selected].filter((root) => rows.has(root)).map((root) => rows.get(root));
  if (ticked.length) return { n: ticked.filter((each) => each.state === "waiting").length, all: ticked, body: { message_ids: ticked.map((each) => each.message_id) }, words: `${count(ticked.length)} chosen` };
  const waiting = found.groups.reduce((sum, each) => sum + each.waiting, 0);
  return { n: waiting, all: null, body: { q: address.read().q, until }, words: address.read().q ? "all that fit" : "all" };
}

function drawBar() {
  const what = chosen(), ticked = what.all !== null, dismissed = ticked && what.all.every((each) => each.state === "dismissed");
  const done = () => { selected.clear(); refresh(); };
  if (!rows.size) return fill(bar);
  return fill(bar,
    h("label.check", {}, h("input", { type: "checkbox", "data-key": "select all", checked: ticked && selected.size === rows.size, onchange: (event) => { selected = new Set(event.target.checked ? rows.keys() : []); draw(); } }), ticked ? what.words : "choose all shown"),
    about.may_publish && h("button.primary", { type: "button", "data-key": "replay", disabled: !what.n, onclick: () => replay(what.body, what.n, done) }, `Replay ${ticked ? "" : `${what.words}: `}${count(what.n)}`),
    dismissed
      ? h("button", { type: "button", "data-key": "dismiss", onclick: () => dismiss({ ...what.body, undo: true }, what.all.length, done) }, "Put back")
      : h("button", { type: "button", "data-key": "dismiss", disabled: !what.n, onclick: () => dismiss(what.body, what.n, done) }, `Dismiss ${ticked ? "" : `${what.words}: `}${count(what.n)}`),
    !about.may_publish && h("span.note", {}, about.names["input topic"] ? "Replaying is off: start the console with --allow_publish." : "Replaying needs --input_topic."));
}

function letter(each) {
  const done = () => refresh();
  const tick = h("input", { type: "checkbox", "data-key": `tick ${each.root}`, "aria-label": `choose ${each.message_id}`, onchange: () => { selected[tick.checked ? "add" : "delete"](each.root); announce(`${selected.size} chosen`); draw(); } });
  tick.checked = selected.has(each.root);
  const attributes = Object.entries(each.attributes);
  return h("li.letter", { "data-state": each.state }, tick,
    h("div.letter-text", {}, picture(each), h("pre", { tabindex: 0, dir: "auto" }, each.input || "(empty)"), h("p.error-words", { dir: "auto" }, each.error),
      attributes.length > 0 && h("p.attributes", {}, attributes.slice(0, 6).map(([key, value]) => h("button.attribute", { type: "button", dir: "auto", title: "show these", onclick: () => narrow(term(key, value, "=")) }, `${cut(seen(key), 40)}=${value && cut(seen(value), 40)}`)), left(attributes, 6, " on its page", "span.note")),
      (each.steps.length > 1 || each.state === "replayed") && thread(each, each.message_id)),
    h("div.letter-side", {},
      h("span", {}, h(`span.pill.${PILLS[each.state]}`, {}, each.state === "replayed" ? "replayed, on its way" : each.state), each.steps.filter((step) => step.what === "failed").length > 1 && h("small", {}, ` failed ${each.steps.filter((step) => step.what === "failed").length} times`)),
      h("small", { title: full(each.ended) }, `${each.stage} · ${each.error_type} · ${ago(each.ended)}`), storyLink(each.message_id),
      each.why && h("small", { dir: "auto" }, `“${each.why}”`),
      each.state === "waiting" && h("span.buttons", {},
        about.may_publish && h("button", { type: "button", "data-key": `replay ${each.root}`, onclick: () => replay({ message_ids: [each.message_id] }, 1, done) }, "Replay"),
        about.may_publish && h("button", { type: "button", "data-key": `edit ${each.root}`, onclick: () => edit(each, done) }, "Edit"),
        h("button", { type: "button", "data-key": `dismiss ${each.root}`, onclick: () => dismiss({ message_ids: [each.message_id] }, 1, done) }, "Dismiss")),
      each.state === "dismissed" && h("button", { type: "button", "data-key": `back ${each.root}`, onclick: () => dismiss({ message_ids: [each.message_id], undo: true }, 1, done) }, "Put back")));
}
