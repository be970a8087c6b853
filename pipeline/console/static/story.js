// One message's whole story: what came in, what became of it, its thread through replays, its audit row.

import * as address from "./address.js";
import { about, get } from "./api.js";
import { copyButton } from "./copy.js";
import { h, fill, chip, cut, ms, empty, count } from "./dom.js";
import { picture } from "./pictures.js";
import { answer } from "./predictions.js";
import { ago, full } from "./time.js";

const dialog = document.getElementById("story");
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => { if (address.read().message) address.go({ message: null }); });

let shown = null;

/** Opens or closes the story that the address names. */
export function follow() {
  const { message } = address.read();
  if (message === shown && (dialog.open || !message)) return;
  shown = message;
  if (message) show(message);
  else if (dialog.open) dialog.close();
}

export const openStory = (id) => address.go({ message: id });
export const storyLink = (id, ...words) => h("a.link", { href: address.messageAt(id), "data-key": `story ${id}` }, words.length ? words : id);

async function show(id) {
  fill(dialog, h("h2.sr", { id: "story-title" }, "Message"), h("div.empty", {}, h("i.spinner"), " looking it up"));
  if (!dialog.open) dialog.showModal();
  let found;
  try {
    found = await get(`/api/message?id=${encodeURIComponent(id)}`);
  } catch (error) {
    found = { problem: error.message };
  }
  if (shown !== id) return;
  const { story, audit } = found, row = audit?.[0];
  const status = story?.status || row?.status;
  fill(dialog,
    h("div.card-head", {}, h("h2", { id: "story-title" }, "Message ", h("code", {}, id)),
      copyButton(id, "Copy id"), copyButton(() => location.href, "Copy link"), h("button.close", { type: "button", "aria-label": "Close", autofocus: true, onclick: () => dialog.close() }, "×")),
    found.problem && h("p.problem", {}, found.problem),
    !story && !row && !found.problem && empty("Not found", "It is neither among the messages that this console has seen nor in the audit table."),
    status && h("p.outcome", {}, h(`span.pill.${status === "ok" ? "good" : "bad"}`, {}, status === "ok" ? "result" : "dead letter"),
      story?.latency_ms !== null && story?.latency_ms !== undefined && ` after ${ms(story.latency_ms)}`,
      story?.ended && ` · ${full(story.ended)}`, story?.label && [" · ", chip(story.label)], story?.variant && ` · variant ${story.variant}`),
    row?.truncated && h("p.warning", {}, "The model read only the beginning: the input is longer than its maximum, and was cut."),
    story?.status === "dead_letter" && h("div.failed", {}, h("strong", {}, `${story.stage}: ${story.error_type}`), h("p", { dir: "auto" }, story.error)),
    story?.case && part("From failure to result", thread(story.case, id)),
    story && part("What came in", picture(story), cameIn(story), attributes(story.attributes)),
    story?.status === "ok" && part("What went out", answer(story), h("details", {}, h("summary", {}, "The result as published"), h("pre", { tabindex: 0, dir: "auto" }, cut(story.output, 20_000)), story.output.length > 20_000 && h("p.note", {}, `the first 20,000 of ${count(story.output.length)} characters`), copyButton(story.output), attributes(story.output_attributes))),
    found.audit_error && part("Audit row", h("p.problem", {}, found.audit_error)),
    row && part(audit.length > 1 ? `Audit row, the newest of ${audit.length}` : "Audit row",
      h("dl.row", {}, Object.entries(row).filter(([, value]) => value !== null).map(([key, value]) => [h("dt", {}, key), h("dd", { dir: "auto" }, typeof value === "object" ? JSON.stringify(value) : cut(String(value), 600))])),
      copyButton(() => JSON.stringify(row, null, 1), "Copy as JSON")),
    audit && !row && part("Audit row", h("p.note", {}, "none yet")));
}

/** What the input topic carried, or the dead letter, or what the result tells of it; and if nothing does, that. */
function cameIn(story) {
  if (story.body === null) {
    return h("p.note", {}, about.watching.includes("input")
      ? "Not known: it was published before this console began, or is no longer kept."
      : "Not known: the input topic is not watched, and the result does not carry its input.");
  }
  const more = story.body_bytes > story.body.length && story.body.endsWith("…");
  return [story.body_from === "the result" && h("p.note", {}, "As the result tells it:"),
    h("pre", { tabindex: 0, dir: "auto" }, story.body === "" ? "(empty)" : story.body),
    more && h("p.note", {}, `the first ${count(story.body.length)} characters of ${count(story.body_bytes)} bytes`),
    story.body !== "" && !/^(image|audio)\//.test(story.attributes?.["content-type"]) && copyButton(story.body)];
}

/** A failure, its replays and how they ended, as one list. */
export function thread({ steps, state }, here = null) {
  return h("ol.thread", {}, steps.map((step) => h(`li.${step.what === "failed" ? "bad" : step.what === "became a result" ? "good" : "quiet"}`, {},
    h("span", {}, step.what, step.stage && ` at ${step.stage}: ${step.error_type}`), step.words && h("span", { dir: "auto" }, ` – ${cut(step.words, 160)}`), step.label && [" ", chip(step.label)],
    step.message_id && step.message_id !== here && [" ", storyLink(step.message_id)], h("small", { title: full(step.time) }, ` ${ago(step.time)}`))),
    state === "replayed" && h("li.waiting", {}, h("i.spinner"), " on its way"));
}

const part = (title, ...children) => h("section.part", {}, h("h3", {}, title), children);

function attributes(all) {
  const entries = Object.entries(all || {});
  return entries.length ? h("dl.row", {}, entries.map(([key, value]) => [h("dt", { dir: "auto" }, key), h("dd", { dir: "auto" }, value)])) : null;
}
