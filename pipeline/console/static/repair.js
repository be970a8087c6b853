// Repair: replay, edit and replay, dismiss; each asked for once more before it is done.

import { about, get, post } from "./api.js";
import { h, fill, count } from "./dom.js";

const dialog = document.getElementById("confirm");
const many = (n) => n === 1 ? "this message" : `${count(n)} messages`;

/** A question with one button that does it; what fails is said in it. */
function question(title, inside, verb, action, first = null) {
  const problem = h("p.problem", { role: "alert", hidden: true });
  const go = h("button.primary", { type: "submit" }, verb);
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await action();
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      go.disabled = false;
    }
  } }, inside, problem, h("div.toolbar.right", {}, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go));
  fill(dialog, h("h2", { id: "confirm-title" }, title), form);
  dialog.showModal();
  (first || go).focus();
}

export function replay(body, n, done) {
  question(`Replay ${many(n)}?`, [
    h("p", {}, "Published again to ", h("code", {}, about.names["input topic"]), ", with the same bytes, attributes and ordering key. If the cause is not mended, it fails again."),
    h("p.note", {}, "The copies in other subscriptions of the dead-letter topic stay where they are."),
  ], `Replay ${n === 1 ? "it" : count(n)}`, async () => { await post("/api/replay", body); done(); });
}

export async function edit(letter, done) {
  let draft;
  try {
    draft = await get(`/api/draft?id=${encodeURIComponent(letter.message_id)}`);
  } catch (error) {
    return question("It cannot be edited", h("p.problem", {}, error.message), "Close", async () => {});
  }
  const text = draft.text !== null && h("textarea.sql", { id: "edit-text", rows: 8, spellcheck: "false", dir: "auto" });
  if (text) text.value = pretty(draft.text);
  const attributes = h("textarea.sql.small", { id: "edit-attributes", rows: 4, spellcheck: "false", dir: "auto" });
  attributes.value = JSON.stringify(draft.attributes, null, 1);
  return question("Edit and replay", [
    h("p.error-words", { dir: "auto" }, letter.error),
    text ? h("label", { for: "edit-text" }, "Body") : h("p.note", {}, "Its body is no text, or large: it goes as it is."), text,
    h("label", { for: "edit-attributes" }, "Attributes, as a JSON object of texts"), attributes,
    h("p.note", {}, "A new message is published; it names the one that failed."),
  ], "Replay as edited", async () => {
    let own;
    try {
      own = JSON.parse(attributes.value);
    } catch (error) {
      throw new Error(`attributes: ${error.message}`);
    }
    // What was laid out for reading and not changed goes back as it came.
    const words = text && (text.value === pretty(draft.text) ? draft.text : text.value);
    await post("/api/replay", { message_ids: [letter.message_id], edit: { attributes: own, ...(text && { text: words }) } });
    done();
  }, text || attributes);
}

/** JSON laid out for reading, where laying it out loses nothing. */
function pretty(text) {
  try {
    const value = JSON.parse(text);
    return JSON.stringify(value) === text.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1") ? JSON.stringify(value, null, 1) : text;
  } catch {
    return text;
  }
}

export function dismiss(body, n, done) {
  if (body.undo) {
    return question(`Put ${many(n)} back?`, h("p", {}, "They wait again, as if they had not been dismissed."), "Put back", async () => { await post("/api/dismiss", body); done(); });
  }
  const why = h("input", { type: "text", id: "why", required: true, maxlength: 500, dir: "auto" });
  return question(`Dismiss ${many(n)}?`, [
    h("p", {}, "Nothing is deleted: the dead letters stay in every subscription. This console lists them under Dismissed while it runs."),
    h("label", { for: "why" }, "Why"), why,
  ], `Dismiss ${n === 1 ? "it" : count(n)}`, async () => { await post("/api/dismiss", { ...body, why: why.value }); done(); }, why);
}
