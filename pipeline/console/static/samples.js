// Samples: what passed the chosen step of the drawing last, and what failed there.

import * as address from "./address.js";
import { get } from "./api.js";
import { h, fill, keepFocus, card, chip, empty } from "./dom.js";
import { term, narrow } from "./filter.js";
import { NODES } from "./drawing.js";
import { thumbnail } from "./pictures.js";
import { storyLink } from "./story.js";
import { clock, full, zone } from "./time.js";

let drawn = "";
export const reset = () => { drawn = ""; };

export async function refresh(place) {
  const { step, q } = address.read();
  if (!step && !q) { drawn = ""; return fill(place); }
  const at = step || "output";
  try {
    const found = await get(`/api/samples?${new URLSearchParams({ step: at, q })}`);
    const now = address.read(), key = JSON.stringify([found, at, q]);
    if (now.step !== step || now.q !== q || key === drawn) return null;
    drawn = key;
    return keepFocus(place, () => show(place, at, found));
  } catch (error) {
    drawn = "";
    return fill(place, empty("No samples", error.message));
  }
}

function show(place, step, { passed, failed }) {
  const name = Object.fromEntries([...NODES, ["dead", "Dead letters"]])[step] || step;
  const bench = ["decode", "predict", "encode", "audit"].includes(step) ? () => narrow(term("stage", step), "dead-letters") : () => address.go({ view: "dead-letters", step: "" });
  fill(place, h("div.two", {},
    step !== "dead" && card(step === "input" ? "Input: arrived last" : step === "output" ? "Results: the last" : `${name}: passed last`, `newest first, ${zone()}`, passed.length ? h("ul.list", {}, passed.map(row)) : h("p.note", {}, step === "input" ? "None, or the input topic is not watched." : "None yet that fits.")),
    !["input", "output"].includes(step) && card(`${name}: failed last`, failed.length ? h("button.link", { type: "button", "data-key": "bench", onclick: bench }, "all of them") : null, failed.length ? h("ul.list", {}, failed.map(row)) : h("p.note", {}, "None here that fits."))));
}

const row = (each) => h("li.item.sample", {}, h("span.when", { title: full(each.ended ?? each.published) }, clock(each.ended ?? each.published)),
  h("span.what", { dir: "auto" }, thumbnail(each), storyLink(each.message_id, each.input || `message ${each.message_id}`), each.error && h("small.error-words", { dir: "auto" }, `${each.stage} · ${each.error_type}: ${each.error}`)),
  h("span.said", {}, each.status === "ok" && each.label !== null ? chip(each.label) : each.status === "dead_letter" ? h("span.pill.bad", {}, each.state || "dead letter") : each.status === null ? h("span.pill.quiet", {}, "on its way") : null));
