// Try it: type a message or choose a file, and watch it travel.

import { about, get, post } from "./api.js";
import { h, fill, card, cut, empty, ms, bytes, announce } from "./dom.js";
import { tasksOf } from "./job.js";
import { answer } from "./predictions.js";
import { storyLink } from "./story.js";

const PATIENCE_S = 60;
const EXAMPLES = [
  "I was charged twice for order 4711, please send one payment back.",
  "Wo bleibt mein Paket? Es sollte am Montag kommen.",
  "La aplicación se cierra cada vez que abro mi pedido.",
  "Please cancel my subscription at the end of the month.",
];
/** Tasks whose input is no text: the examples above would say nothing to them. */
const FILES = /image|object|depth|segment|visual|audio|speech|video/;
let journey, examples, text, topic, sent = remembered();

/** What was sent stays when one goes away and comes back, and when the page is loaded again. */
function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem("tries") || "[]").map((each) => ({ ...each, began: 0, element: h("section.card.journey"), ended: false, old: true }));
  } catch {
    return [];
  }
}

const remember = () => sessionStorage.setItem("tries", JSON.stringify(sent.filter((each) => each.published.body.length < 5000).map(({ id, published, shown }) => ({ id, published, shown }))));

/** Whether a text is a message's body already: JSON with `inputs`. It is not wrapped again. */
export function isBody(words) {
  if (!/^\s*\{/.test(words)) return false;
  try {
    return Object.hasOwn(JSON.parse(words), "inputs");
  } catch {
    return false;
  }
}

export function start(root) {
  if (!about.may_publish) {
    fill(root, h("h1.sr", {}, "Try it"), empty("This console only reads",
      about.names["input topic"] ? "Start it with --allow_publish to publish to a real project." : "Start it with --input_topic to type messages."));
    return;
  }
  text = h("textarea", { id: "text", rows: 4, dir: "auto", placeholder: "A text for the model, or a body: {\"inputs\": …, \"parameters\": …}", "aria-label": "Text of the message", oninput: () => tell() });
  const raw = h("input", { type: "checkbox", id: "raw", onchange: () => tell() });
  const how = h("p.note", { id: "how" });
  function tell() {
    how.textContent = file.files[0] ? "" : raw.checked ? "Sent as it stands, byte for byte." : isBody(text.value) ? "This is JSON with inputs: it is sent as it is." : text.value.trim() ? "A text: it is sent as {\"inputs\": \"…\"}." : "";
  }
  text.value = sessionStorage.getItem("draft") || "";
  const file = h("input.sr", { type: "file", id: "file", accept: "image/*,audio/*", onchange: () => choose() });
  const chosen = h("div.chosen", { hidden: true });
  const send = h("button.primary", { type: "submit" }, "Publish");
  const problem = h("p.problem", { role: "alert", hidden: true });
  journey = h("div.journeys");
  examples = h("div.examples", {}, EXAMPLES.map((example) => h("button.example", { type: "button", onclick: () => { text.value = example; tell(); text.focus(); } }, example)));
  topic = h("span");
  async function choose() {
    const one = file.files[0], address = one && await read(one);
    if (one !== file.files[0]) return;
    chosen.hidden = !one;
    text.disabled = raw.disabled = Boolean(one);
    examples.hidden = Boolean(one);
    fill(chosen, one && [one.type.startsWith("image/") && h("img.picture", { src: address, alt: "", onerror: (event) => event.target.remove() }), h("span", {}, h("strong", {}, one.name), h("small", {}, `${bytes(one.size)}, sent in place of a text`)),
      h("button", { type: "button", onclick: () => { file.value = ""; choose(); text.focus(); } }, "Remove")]);
  }
  const form = h("form.try", {
    onsubmit: async (event) => {
      event.preventDefault();
      problem.hidden = true;
      send.disabled = true;
      const say = (words) => { problem.textContent = words; problem.hidden = !words; };
      const slow = setTimeout(say, 2000, "Pub/Sub has not taken it yet; the console goes on trying");
      try {
        await publish(file.files[0], text.value, raw.checked);
        file.value = "";
        choose();
        sessionStorage.removeItem("draft");
        say("");
      } catch (error) {
        say(error.message);
      }
      clearTimeout(slow);
      send.disabled = false;
    },
    onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); },
  },
  text,
  chosen,
  how,
  examples,
  h("div.try-row", {},
    h("label.check", {}, raw, "send it as the raw body"),
    h("label.file", {}, file, "Choose an image or a sound"),
    h("span.grow"), h("kbd", {}, "Ctrl"), h("kbd", {}, "Enter"), send),
  problem);
  fill(root, h("h1.sr", {}, "Try it"), card("Publish a message", topic, form), journey);
  if (sent.length) fill(journey, sent.map((each) => each.element));
  else fill(journey, empty("Nothing published from here yet", "Type something above: the result comes back here, with the time it spent in each stage."));
  tell();
  text.addEventListener("input", () => sessionStorage.setItem("draft", text.value));
  text.focus({ preventScroll: true });
}

export function filtered() {}

/** What was sent is kept, and is there again when one comes back. */
export function leave() {
  if (journey) fill(journey);
}

export function update({ figures }) {
  if (!about.may_publish) return;
  topic.textContent = [about.names["input topic"].split("/").at(-1), ...tasksOf(figures)].join(" · ");
  const tasks = tasksOf(figures);
  examples.hidden = text.disabled || (tasks.length > 0 && tasks.every((each) => FILES.test(each)));
  for (const each of sent) if (!each.ended) look(each);
}

/** A file as a data: address. */
const read = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
  reader.readAsDataURL(file);
});

async function publish(file, words, raw) {
  const began = performance.now(), address = file && await read(file);
  const answered = await post("/api/publish", file ? { base64: address.slice(address.indexOf(",") + 1), content_type: file.type } : raw || isBody(words) ? { json: words } : { text: words });
  const each = { id: answered.message_id, published: answered, shown: file?.name || words, picture: file?.type.startsWith("image/") && address, began, element: h("section.card.journey"), ended: false };
  if (!sent.length) fill(journey);
  sent.unshift(each);
  sent.length = Math.min(sent.length, 10);
  remember();
  journey.prepend(each.element);
  draw(each, null);
  look(each);
}

/** Asks for the message until it has ended and its audit row is there. */
async function look(each) {
  if (each.looking) return;
  each.looking = true;
  try {
    for (let pause = 60; !each.ended; pause = Math.min(1000, pause * 1.4)) {
      // A console that is away may be back within the patience, and knows what Pub/Sub kept for it.
      const found = await get(`/api/message?id=${encodeURIComponent(each.id)}`).catch((error) => ({ error }));
      const age = (performance.now() - each.began) / 1000;
      const whole = found.story?.status && (!about.names["audit table"] || found.audit?.length || found.audit_error || age > 10);
      each.ended = whole || age > PATIENCE_S || each.old;
      if (each.ended && found.error) { fill(each.element, empty("It was published, and then the console stopped answering", found.error.message)); return; }
      draw(each, found, age);
      if (each.ended && !each.old) announce(found.story?.status === "ok" ? `Result: ${found.story.label ?? "there"}` : found.story ? `Dead letter: ${found.story.error_type}` : "Nothing came back");
      if (!each.ended) await new Promise((done) => setTimeout(done, pause));
    }
  } finally {
    each.looking = false;
  }
}

function draw(each, found, age = 0) {
  const story = found?.story?.status ? found.story : null;
  const row = found?.audit?.[0];
  const waiting = !story && (each.ended
    ? h("p.problem", {}, each.old ? "What became of it is not known: the console no longer keeps it, or it is still on its way." : `Nothing came back in ${PATIENCE_S} s. Is the job running?`)
    : h("p.waiting", {}, h("i.spinner"), ` on its way${age > 3 ? `, ${age.toFixed(0)} s` : ""}`));
  fill(each.element,
    h("div.card-head", {}, h("h2", { dir: "auto" }, cut(each.shown, 120)),
      storyLink(each.id)),
    each.picture && h("img.picture", { src: each.picture, alt: "", onerror: (event) => event.target.remove() }),
    waiting,
    story?.status === "ok" && answer(story),
    story?.status === "dead_letter" && h("div.failed", {}, h("strong", {}, `Dead letter at ${story.stage}: ${story.error_type}`), h("p", {}, story.error)),
    story && timeline(stages(story, row)),
    h("details", {}, h("summary", {}, "The message as published"), h("pre", { tabindex: 0, dir: "auto" }, each.published.body), h("pre", { tabindex: 0, dir: "auto" }, JSON.stringify(each.published.attributes, null, 2))));
}

/** Where the time went, from the topics' clocks and the audit row; what is not known is left out. */
function stages(story, row) {
  const published = story.published, parts = [];
  const made = row && story.output ? Date.parse(parsed(story.output)?.processed_time) / 1000 : null;
  const audited = row ? Date.parse(row.processed_time) / 1000 : null;
  if (published && made && row.inference_ms !== null) {
    parts.push(["waited, decoded, tokenised", (made - published) * 1000 - row.inference_ms, "c0"], ["model", row.inference_ms, "c1"]);
    parts.push(["encoded, audited", (audited - made) * 1000, "c3"], ["row written, published", (story.ended - audited) * 1000, "c2"]);
  } else if (published && audited) {
    parts.push(["waited, decoded", (audited - published) * 1000, "c0"], ["row written, published", (story.ended - audited) * 1000, "c2"]);
  } else if (story.latency_ms !== null) parts.push(["publish to result", story.latency_ms, "c1"]);
  return parts.map(([name, time, colour]) => [name, Math.max(0, time), colour]);
}

const parsed = (text) => { try { return JSON.parse(text); } catch { return null; } };

function timeline(parts) {
  const total = parts.reduce((sum, [, time]) => sum + time, 0);
  if (!total) return null;
  return h("div.timeline", {},
    h("div.track", { role: "img", "aria-label": `${ms(total)} in all` }, parts.map(([name, time, colour]) => {
      const piece = h(`i.${colour}`, { title: `${name}: ${ms(time)}` });
      piece.style.flexGrow = Math.max(time, total / 200);
      return piece;
    })),
    h("div.legend", {}, parts.map(([name, time, colour]) => h("span", {}, h(`i.key.${colour}`), `${name} `, h("b", {}, ms(time)))), h("span", {}, "in all ", h("b", {}, ms(total)))));
}
