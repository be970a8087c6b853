// One message's whole story: what came in, what became of it, its audit row.

import { get } from "./api.js";
import { h, fill, chip, clock, ms, empty, colourOf } from "./dom.js";

const dialog = document.getElementById("story");
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => { if (location.hash.startsWith("#message/")) history.back(); });

/** The answer to one message as a person reads it. */
export function answer(story) {
  const parsed = parse(story.output)?.prediction;
  const list = Array.isArray(parsed) ? parsed : parsed && typeof parsed === "object" ? [parsed] : null;
  if (list?.length && list.every((each) => each && typeof each === "object" && typeof each.label === "string" && typeof each.score === "number")) {
    return h("div.answer", {}, list.slice(0, 6).map((each, index) => {
      const bar = h(`i.bar.${index ? "c0" : colourOf(each.label)}`);
      bar.style.width = `${100 * each.score}%`;
      return h("div.bar-row", {}, h("span.bar-label", {}, each.label), h("span.bar-track", {}, bar), h("span.bar-value", {}, `${(100 * each.score).toFixed(1)} %`));
    }));
  }
  if (typeof parsed === "string") return h("p.prediction", {}, parsed);
  if (list?.length === 1 && typeof list[0]?.generated_text === "string") return h("p.prediction", {}, list[0].generated_text);
  return h("pre", {}, cut(JSON.stringify(parsed ?? story.prediction ?? story.label, null, 1) || "", 2000));
}

const parse = (text) => { try { return JSON.parse(text); } catch { return null; } };
const cut = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

export async function openStory(id) {
  fill(dialog, h("div.empty", {}, h("i.spinner"), " looking it up"));
  if (!dialog.open) dialog.showModal();
  let found;
  try {
    found = await get(`/api/messages/${encodeURIComponent(id)}`);
  } catch (error) {
    found = { problem: error.message };
  }
  const story = found.story, row = found.audit?.[0];
  const status = story?.status || row?.status;
  fill(dialog,
    h("div.card-head", {}, h("h2", { id: "story-title" }, "Message ", h("code", {}, id)),
      h("button.close", { type: "button", "aria-label": "Close", autofocus: true, onclick: () => dialog.close() }, "×")),
    found.problem && h("p.problem", {}, found.problem),
    !story && !row && !found.problem && empty("Not found", "It is neither among the messages that this console has seen nor in the audit table."),
    status && h("p.outcome", {}, h(`span.pill.${status === "ok" ? "good" : "bad"}`, {}, status === "ok" ? "result" : "dead letter"),
      story?.latency_ms !== null && story?.latency_ms !== undefined && ` after ${ms(story.latency_ms)}`,
      story?.replay_of && [" · a replay of ", link(story.replay_of)], story?.replayed_as && [" · replayed as ", link(story.replayed_as)]),
    story?.status === "dead_letter" && h("div.failed", {}, h("strong", {}, `${story.stage}: ${story.error_type}`), h("p", {}, story.error)),
    story && part("What came in", story.picture && h("img.picture", { src: story.picture, alt: "the picture that came in", onerror: (event) => event.target.remove() }), h("pre", {}, story.body === "" ? "(empty)" : story.body ?? "not kept"), attributes(story.attributes)),
    story?.status === "ok" && part("What went out", answer(story), h("details", {}, h("summary", {}, "The result as published"), h("pre", {}, story.output), attributes(story.output_attributes))),
    found.audit_error && part("Audit row", h("p.problem", {}, found.audit_error)),
    row && part(found.audit.length > 1 ? `Audit row, the newest of ${found.audit.length}` : "Audit row",
      h("dl.row", {}, Object.entries(row).filter(([, value]) => value !== null).map(([key, value]) => [h("dt", {}, key), h("dd", {}, typeof value === "object" ? JSON.stringify(value) : cut(String(value), 600))]))),
    found.audit && !row && part("Audit row", h("p.note", {}, "none yet")));
}

const part = (title, ...children) => h("section.part", {}, h("h3", {}, title), children);
const link = (id) => h("button.link", { type: "button", onclick: () => openStory(id) }, id);

function attributes(all) {
  const entries = Object.entries(all || {});
  return entries.length ? h("dl.row", {}, entries.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])) : null;
}
