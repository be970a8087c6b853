// Dead letters by stage and error, each readable, each to be replayed once its cause is mended.

import { about, get, post } from "./api.js";
import { h, fill, keepFocus, empty, count, clock, chip } from "./dom.js";
import { openStory } from "./story.js";

const confirmation = document.getElementById("confirm");
let root, list, open = null, drawn = "", listed = "", groups = [];

export function start(element) {
  root = element;
  drawn = "";
  unfold(open);
}

function unfold(group) {
  open = group;
  listed = "";
  list = h("div.list.letters", { role: "list" }, h("p.note", {}, "loading"));
}

export function update({ figures }) {
  groups = figures.groups;
  draw();
}

function draw() {
  const key = JSON.stringify([groups, open]);
  if (key === drawn) return open && refresh();
  drawn = key;
  if (!groups.length) {
    return fill(root, h("h1.sr", {}, "Dead letters"), empty("No dead letters", "A message that cannot become a result is shown here, with the reason and its own bytes."));
  }
  const known = new Set(groups.map(name));
  if (!known.has(open)) open = null;
  keepFocus(root, () => fill(root, h("h1.sr", {}, "Dead letters"), h("div.groups", {}, groups.map(group))));
  refresh();
}

const name = (group) => `${group.stage}/${group.error_type}`;

function group(each) {
  const mine = name(each) === open, replayed = each.count - each.waiting;
  return h("section.card.group", {},
    h("button.group-head", { type: "button", "data-key": name(each), "aria-expanded": String(mine), onclick: () => { unfold(mine ? null : name(each)); draw(); } },
      h("span.pill.bad", {}, each.stage), h("strong", {}, each.error_type),
      h("span.example-error", {}, each.example), h("span.grow"),
      replayed > 0 && h("small", {}, `${count(replayed)} replayed`), h("b", {}, count(each.count)), h("i.fold")),
    mine && h("div.group-body", {},
      h("div.toolbar", {},
        about.may_publish
          ? h("button.primary", { type: "button", "data-key": `all ${name(each)}`, disabled: !each.waiting, onclick: () => confirm(each) }, `Replay all ${count(each.waiting)} like this`)
          : h("p.note", {}, about.names["input topic"] ? "Replaying is off: start the console with --allow_publish." : "Replaying needs --input_topic."),
        h("span.note", {}, `last at ${clock(each.last)}`)),
      list));
}

async function refresh() {
  const mine = groups.find((each) => name(each) === open), place = list;
  if (!mine) return;
  try {
    const found = await get(`/api/dead-letters?${new URLSearchParams({ stage: mine.stage, error_type: mine.error_type })}`);
    const key = JSON.stringify(found);
    if (key === listed || place !== list) return;
    listed = key;
    keepFocus(place, () => fill(place, found.letters.map(letter), found.count > found.letters.length && h("p.note", {}, `and ${count(found.count - found.letters.length)} older ones`)));
  } catch (error) {
    listed = "";
    fill(place, h("p.problem", {}, error.message));
  }
}

function letter(each) {
  const outcome = each.outcome;
  return h("div.letter", { role: "listitem" },
    h("div.letter-text", {}, h("pre", {}, each.input || "(empty)"), h("p.error-words", {}, each.error)),
    h("div.letter-side", {},
      h("button.link", { type: "button", "data-key": `story ${each.message_id}`, onclick: () => openStory(each.message_id) }, each.message_id),
      !each.replayed_as && about.may_publish && h("button", { type: "button", "data-key": `replay ${each.message_id}`, onclick: () => confirm(each, true) }, "Replay"),
      each.replayed_as && !outcome && h("span.waiting", {}, h("i.spinner"), " replayed, on its way"),
      outcome?.status === "ok" && h("span.pill.good", {}, "became a result"),
      outcome?.status === "ok" && outcome.label && chip(outcome.label),
      outcome?.status === "dead_letter" && h("span.pill.bad", {}, `failed again at ${outcome.stage}`)));
}

function confirm(each, one = false) {
  const many = one ? "this message" : `${count(each.waiting)} message${each.waiting === 1 ? "" : "s"}`;
  const problem = h("p.problem", { role: "alert", hidden: true });
  const go = h("button.primary", { type: "button", onclick: async () => {
    go.disabled = true;
    try {
      await post("/api/replay", one ? { message_ids: [each.message_id] } : { stage: each.stage, error_type: each.error_type });
      confirmation.close();
      refresh();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      go.disabled = false;
    }
  } }, one ? "Replay it" : `Replay ${many}`);
  fill(confirmation,
    h("h2", { id: "confirm-title" }, `Replay ${many}?`),
    h("p", {}, "Published again to ", h("code", {}, about.names["input topic"]), ", with the same bytes, attributes and ordering key. If the cause is not mended, it fails again."),
    h("p.note", {}, "The copies in other subscriptions of the dead-letter topic stay where they are."),
    problem,
    h("div.toolbar.right", {}, h("button", { type: "button", onclick: () => confirmation.close() }, "Cancel"), go));
  confirmation.showModal();
  go.focus();
}
