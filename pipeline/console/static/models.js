// The models of a file (`--models`): what serves since when, in which shares, how the shadows do, what is refused and why.

import { h, fill, count, bytes, share } from "./dom.js";
import { narrow, term } from "./filter.js";
import { revisionOf } from "./job.js";
import { full } from "./time.js";

const COLUMNS = [["Model"], ["Is"], ["By the file"], ["Of its results", 1], ["Answered", 1], ["Failed", 1], ["As a shadow"], ["Checks that hold", 1], ["In memory", 1]];
const part = (one) => share(one, 1);
let drawn = "";

/** Tells what the job wrote of its models (`--metrics_file`), beside what its results say. */
export function show(place, { figures }) {
  const told = figures.metrics?.models, gone = figures.job.state === "gone", key = JSON.stringify([told, figures.variants, gone]);
  place.hidden = !told;
  if (key === drawn && place.childElementCount) return;
  drawn = key;
  const scrolled = place.querySelector(".scroll")?.scrollLeft || 0;
  fill(place, told && [
    h("div.card-head", {}, h("h2", {}, "Models"), h("span.note", { dir: "auto" }, `${gone ? "What the job last said: " : ""}${told.file}, version `, h("code", {}, told.models_version), ` since ${full(told.since)}; ${count(told.memory.models)} in memory, ${bytes(told.memory.bytes)} of ${bytes(told.memory.most)}`)),
    told.refused && h("p.problem", { dir: "auto" }, h("strong", {}, `Refused since ${full(told.refused.since)}; what served goes on: `), told.refused.why),
    Object.entries(told.rule_errors || {}).map(([rule, { errors, error }]) => h("p.warning", { dir: "auto" }, h("code", {}, rule), ` raised on ${count(errors)} messages and found nothing: ${error}`)),
    h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Models" }, h("table", {},
      h("thead", {}, h("tr", {}, COLUMNS.map(([name, number]) => h(number ? "th.number" : "th", { scope: "col" }, name)))),
      h("tbody", {}, Object.entries(told.models).map(([name, model]) => row(name, model, told.serve, figures.variants)))))]);
  if (scrolled) place.querySelector(".scroll").scrollLeft = scrolled;
}

function row(name, model, rules, variants) {
  const all = Object.values(variants).reduce((a, b) => a + b, 0), compared = (model.agreed || 0) + (model.disagreed || 0);
  const seen = Object.hasOwn(variants, name) ? variants[name] : 0; // a model may be called "constructor"
  return h("tr", {},
    h("td.short", {}, h("button.link", { type: "button", title: "its results", "data-key": `model-${name}`, onclick: () => narrow(term("variant", name), "results") }, name)),
    h("td.short", { dir: "auto", title: `${model.model} ${model.revision || ""}` }, h("div", {}, model.model.split("/").at(-1)), h("small", {}, model.revision && h("code", {}, `${revisionOf(model.revision)} `), [model.task, model.endpoint && "an endpoint", model.follows && "followed"].filter(Boolean).join(", "))),
    h("td", { dir: "auto" }, routes(name, rules).concat(model.shadow ? [`shadow of ${part(model.shadow)}`] : []).map((each) => h("div", {}, each))),
    h("td.number", { title: "of the newest results since this version came into force" }, seen ? [share(seen, all), h("small", {}, ` ${count(seen)}`)] : "–"),
    h("td.number", {}, count(model.messages || 0)),
    h("td.number", {}, model.failures ? h("span.pill.bad", {}, count(model.failures)) : "0"),
    h("td.short", {}, model.shadowed ? [compared ? `agrees on ${share(model.agreed || 0, compared)} of ${count(compared)}` : `${count(model.shadowed)} answered`, model.failed && h("small", {}, ` ${count(model.failed)} failed`)] : "–"),
    h("td.number", {}, model.checks === undefined ? "–" : `${+(100 * model.checks).toFixed(1)} %`),
    h("td.number", {}, model.endpoint ? "–" : model.loaded ? bytes(model.bytes) : "no"));
}

/** What the rules send to a model, in words. */
function routes(name, rules) {
  return rules.filter((rule) => Object.hasOwn(rule.shares, name) && rule.shares[name]).map(({ when, by, shares }) => [
    part(shares[name]), when ? ` where ${when}` : rules.length > 1 ? " of the rest" : "", by && shares[name] < 1 ? ` by ${by}` : ""].join(""));
}
