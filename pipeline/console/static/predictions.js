// Predictions as what they are: labels as bars, entities in the text, boxes on the picture, vectors as a strip.

import { h, fill, colourOf, count, left, seen } from "./dom.js";
import { boxes, masks, pictureOf } from "./pictures.js";

const CUT = 6000;
const IN_FULL = ", in the result as published";
const all = (list, test) => Array.isArray(list) && list.length > 0 && list.every(test);
const object = (each) => each && typeof each === "object" && !Array.isArray(each);
const number = (each) => typeof each === "number" && Number.isFinite(each);
const text = (each) => typeof each === "string";
/** A score that is a probability as a share; any other, such as a logit, as the number that it is. */
export const percent = (score) => score >= 0 && score <= 1 ? `${(100 * score).toFixed(1)} %` : score.toFixed(3);

/** The prediction in a result's body; undefined where that is none, or is not all here. */
export function predictionOf(output) {
  try {
    return JSON.parse(output).prediction;
  } catch {
    return undefined;
  }
}

/** A message's own `inputs`; a body that is no JSON is one. */
function inputsOf(body) {
  if (!text(body)) return null;
  try {
    return JSON.parse(body).inputs;
  } catch {
    return body;
  }
}

/** What was asked, where it is a text. */
export function asked(body) {
  const inputs = inputsOf(body);
  return text(inputs) ? inputs : object(inputs) ? inputs.context ?? inputs.text ?? null : null;
}

/** The answer to one message as a person reads it. */
export function answer(story) {
  const prediction = predictionOf(story.output);
  if (prediction === undefined) return cutOff(story);
  try {
    return shown(prediction, story) || folded(prediction);
  } catch { // whatever shape it has, it is JSON
    return folded(prediction);
  }
}

function cutOff(story) {
  const whole = story.output_bytes > (story.output || "").length;
  return h("div.stack", {}, whole && h("p.note", {}, `The result has ${count(story.output_bytes)} bytes; here is its beginning.`), h("pre", { tabindex: 0, dir: "auto" }, (story.output || story.prediction || "").slice(0, CUT)));
}

function shown(prediction, story) {
  const one = Array.isArray(prediction) && prediction.length === 1 ? prediction[0] : prediction;
  const list = Array.isArray(prediction) ? prediction : [prediction];
  if (all(list, (each) => object(each) && text(each.label) && object(each.box))) return boxes(list, story);
  if (all(list, (each) => object(each) && text(each.label) && pictureOf(each.mask))) return masks(list, story);
  if (all(list, (each) => object(each) && number(each.start) && number(each.end) && (text(each.entity) || text(each.entity_group)))) return entities(list, story);
  if (all(list, (each) => object(each) && text(each.answer))) return answers(list, story);
  if (all(list, (each) => object(each) && text(each.token_str) && number(each.score))) return labels(list.map((each) => ({ label: each.token_str, score: each.score })));
  if (all(list, (each) => object(each) && text(each.label) && number(each.score))) return labels(list);
  if (object(one) && all(one.labels, text) && all(one.scores, number)) return labels(one.labels.map((label, i) => ({ label, score: one.scores[i] ?? 0 })));
  if (object(one) && text(one.text)) return transcript(one);
  if (all(list, (each) => object(each) && (text(each.generated_text) || Array.isArray(each.generated_text)))) return h("div.stack", {}, list.map((each) => generated(each.generated_text)));
  for (const key of ["summary_text", "translation_text"]) if (object(one) && text(one[key])) return said(one[key]);
  if (text(prediction)) return said(prediction);
  if (object(one) && pictureOf(one.depth)) return h("img.picture", { src: pictureOf(one.depth), alt: "the depth, lighter is nearer" });
  const beside = compared(prediction, story);
  if (beside) return beside;
  const vectors = rows(prediction);
  return vectors && embedding(vectors);
}

const said = (words) => words.length > CUT
  ? h("div.stack", {}, h("p.prediction", { dir: "auto" }, `${words.slice(0, CUT)}…`), h("p.note", {}, `the first ${count(CUT)} of ${count(words.length)} characters; all of it is in the result as published`))
  : h("p.prediction", { dir: "auto" }, words);

function labels(list) {
  const sorted = [...list].sort((a, b) => b.score - a.score);
  return h("ul.answer", {}, sorted.slice(0, 8).map((each, index) => {
    const bar = h(`i.bar.${index ? "c0" : colourOf(each.label)}`);
    bar.style.width = `${Math.max(0, Math.min(100, 100 * each.score))}%`;
    return h("li.bar-row", {}, h("span.bar-label", { dir: "auto", title: each.label }, seen(each.label)), h("span.bar-track", {}, bar), h("span.bar-value", {}, percent(each.score)));
  }), left(list, 8, IN_FULL));
}

/** Texts held against one another: each with its score, in the order of the answer. */
function compared(prediction, story) {
  const inputs = inputsOf(story.body), texts = object(inputs) && (inputs.texts ?? inputs.sentences);
  if (!Array.isArray(prediction) || !prediction.length || !all(texts, text)) return null;
  const pairs = prediction.map((each, i) => number(each) ? [i, each] : object(each) && number(each.index) && number(each.score) ? [each.index, each.score] : null);
  if (!pairs.every((pair) => pair && text(texts[pair[0]]))) return null;
  return h("div.stack", {}, h("p", { dir: "auto" }, inputs.query ?? inputs.source_sentence), h("ul.answer", {}, pairs.slice(0, 30).map(([index, score], i) => {
    const bar = h(`i.bar.${i ? "c0" : "c1"}`);
    bar.style.width = `${Math.max(0, Math.min(100, 100 * score))}%`;
    return h("li.bar-row", {}, h("span.bar-label", { dir: "auto", title: texts[index] }, texts[index]), h("span.bar-track", {}, bar), h("span.bar-value", {}, score.toFixed(3)));
  }), left(pairs, 30, IN_FULL)));
}

/** Entities marked in the text that was asked about; a list where that is not known. */
function entities(list, story) {
  const words = asked(story.body), kind = (each) => each.entity_group ?? each.entity;
  const ordered = [...list].sort((a, b) => a.start - b.start);
  const named = h("ul.named", {}, ordered.slice(0, 60).map((each) => h("li", {}, h(`span.chip.${colourOf(kind(each))}`, {}, kind(each)), h("span", { dir: "auto" }, ` ${each.word ?? ""} `), number(each.score) && h("small", {}, percent(each.score)))), left(ordered, 60, IN_FULL));
  if (words === null) return named;
  return h("div.stack", {}, marked(words, ordered.map((each) => ({ start: each.start, end: each.end, kind: kind(each) }))), named);
}

/** `spans` are in code points, as Python counts. */
function marked(words, spans) {
  const points = [...words], parts = [];
  let at = 0;
  for (const { start, end, kind } of spans) {
    if (start < at || end > points.length) continue;
    parts.push(points.slice(at, start).join(""), h(`mark.${colourOf(kind)}`, { title: kind }, points.slice(start, end).join(""), h("small", {}, kind)));
    at = end;
  }
  return h("p.prediction.marked", { dir: "auto" }, parts, points.slice(at).join(""));
}

function answers(list, story) {
  const words = asked(story.body), first = list[0];
  return h("div.stack", {}, list.map((each) => h("p.prediction", { dir: "auto" }, each.answer || "(no answer)", number(each.score) && h("small", {}, ` ${percent(each.score)}`))),
    words !== null && number(first.start) && number(first.end) && first.end > first.start && marked(words, [{ start: first.start, end: first.end, kind: "answer" }]));
}

function transcript(one) {
  const time = ([from, to]) => `${number(from) ? from.toFixed(1) : "?"} – ${number(to) ? to.toFixed(1) : "?"} s`;
  return h("div.stack", {}, said(one.text), all(one.chunks, (each) => object(each) && Array.isArray(each.timestamp)) && h("ol.chunks", { tabindex: 0 }, one.chunks.slice(0, 500).map((each) => h("li", {}, h("small", {}, time(each.timestamp)), h("span", { dir: "auto" }, each.text))), left(one.chunks, 500, IN_FULL)));
}

function generated(words) {
  if (text(words)) return said(words);
  return h("div.chat", {}, words.length > 20 && h("p.note", {}, `the last 20 of ${count(words.length)}; all are in the result as published`), words.slice(-20).map((each) => h("div", {}, h("small", {}, object(each) ? String(each.role ?? "") : ""), h("p.prediction", { dir: "auto" }, object(each) && text(each.content) ? each.content : JSON.stringify(each)))));
}

/** A list of vectors, however deep they lie; null where it is none. */
function rows(value) {
  if (all(value, number)) return [value];
  if (!Array.isArray(value) || !value.length) return null;
  const found = value.map(rows);
  return found.every(Boolean) ? found.flat() : null;
}

function embedding(vectors) {
  return h("div.stack", {}, vectors.length > 1 && h("p", {}, `${count(vectors.length)} vectors`), vectors.slice(0, 4).map((vector) => {
    const norm = Math.sqrt(vector.reduce((sum, each) => sum + each * each, 0));
    return h("div", {}, h("p", {}, h("b", {}, count(vector.length)), ` number${vector.length === 1 ? "" : "s"}, norm ${norm.toFixed(2)}, from ${least(vector).toPrecision(3)} to ${most(vector).toPrecision(3)}`), strip(vector));
  }), left(vectors, 4, IN_FULL, "p.note"));
}

const least = (vector) => vector.reduce((a, b) => Math.min(a, b));
const most = (vector) => vector.reduce((a, b) => Math.max(a, b));

/** A vector as a strip: one column a number, the farther from zero the stronger. */
function strip(vector) {
  const canvas = h("canvas.strip", { width: Math.min(vector.length, 2048), height: 28, role: "img", "aria-label": `a vector of ${vector.length} numbers` });
  const brush = canvas.getContext("2d"), top = Math.max(...[least(vector), most(vector)].map(Math.abs)) || 1;
  for (let i = 0; i < canvas.width; i++) {
    const value = vector[Math.floor(i * vector.length / canvas.width)] / top;
    brush.fillStyle = value < 0 ? `rgb(214 69 127 / ${-value})` : `rgb(79 70 229 / ${value})`;
    brush.fillRect(i, 0, 1, 28);
  }
  return canvas;
}

/** Any JSON, folded: what is deep is opened one level at a time. */
export function folded(value, name = null, depth = 0) {
  const label = name === null ? null : h("span.json-key", {}, `${name}: `);
  if (value === null || typeof value !== "object") return h("div.json", { dir: "auto" }, label, h("code", {}, text(value) ? (value.length > 500 ? `${value.slice(0, 500)}… (${count(value.length)} characters)` : value) : String(value)));
  const entries = Object.entries(value), list = Array.isArray(value);
  const inside = h("div.json-inside");
  const open = () => { if (!inside.childElementCount) fill(inside, entries.slice(0, 100).map(([key, each]) => folded(each, key, depth + 1)), entries.length > 100 && h("p.note", {}, `and ${count(entries.length - 100)} more`)); };
  const details = h("details.json", { open: depth < 1 && entries.length <= 30, ontoggle: open }, h("summary", {}, label, list ? `${count(entries.length)} item${entries.length === 1 ? "" : "s"}` : `{${entries.slice(0, 4).map(([key]) => key).join(", ")}${entries.length > 4 ? ", …" : ""}}`), inside);
  if (details.open) open();
  return details;
}
