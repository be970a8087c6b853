// The page: one view at a time, chosen by the address after #, fed by one stream of events.

import { about, load } from "./api.js";
import { fill, h, count } from "./dom.js";
import * as flow from "./flow.js";
import * as tryIt from "./try.js";
import * as results from "./results.js";
import * as letters from "./letters.js";
import * as windows from "./windows.js";
import * as audit from "./audit.js";
import { openStory } from "./story.js";

const VIEWS = { flow, try: tryIt, results, "dead-letters": letters, windows, audit };
const HISTORY = 900;
const NEWEST = 200;

/** What the stream told so far; views read it and never write it. */
export const state = { points: [], newest: [], figures: null };

const main = document.getElementById("view");
let current = null;

function show() {
  const [name, argument] = location.hash.slice(1).split("/");
  if (name === "message" && argument) {
    openStory(decodeURIComponent(argument));
    if (current) return;
  }
  const view = VIEWS[name] || flow;
  if (current === view) return;
  current = view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name in VIEWS ? name : "flow"}`) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  fill(main, h("div.view"));
  view.start(main.firstChild, state);
  if (state.figures) view.update(state, []);
}

function status(live, words) {
  const element = document.getElementById("status");
  element.classList.toggle("live", live);
  fill(element, h("i.dot"), h("span", {}, words));
}

function heard(event) {
  const figures = JSON.parse(event.data);
  state.points.push(...figures.points);
  state.points.splice(0, state.points.length - HISTORY);
  state.newest.unshift(...figures.newest);
  state.newest.length = Math.min(state.newest.length, NEWEST);
  state.figures = figures;
  const dead = figures.groups.reduce((sum, group) => sum + group.waiting, 0);
  const badge = document.getElementById("dead-badge");
  badge.hidden = !dead;
  badge.textContent = count(dead);
  const errors = {};
  for (const [name, error] of Object.entries(figures.watches)) if (error) (errors[error] ||= []).push(name.replace("_", " "));
  const troubles = Object.entries(errors).map(([error, names]) => `Pub/Sub, ${names.join(", ")}: ${error}`);
  notice(troubles.join(" · "));
  status(!troubles.length, troubles.length ? "not live" : "live");
  if (!document.hidden) current?.update(state, figures.newest);
}

function notice(words) {
  const element = document.getElementById("notice");
  element.hidden = !words;
  element.textContent = words;
}

let opened = false;
function listen() {
  const events = new EventSource("/api/events");
  events.onopen = async () => {
    // After a break the stream begins anew with all there is, perhaps from another console with another token.
    if (opened) {
      Object.assign(state, { points: [], newest: [] });
      await load().catch(() => {});
    }
    opened = true;
  };
  events.onmessage = heard;
  events.onerror = () => {
    status(false, "not live");
    notice("The console does not answer. What is shown is as it was; it goes on when the console is back.");
    // Refused connections are tried again by the browser, refusing answers are not.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

window.addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => { if (!document.hidden && state.figures) current?.update(state, []); });

try {
  await load();
  document.title = about.names["input topic"]?.split("/").at(-1)?.replace(/-input$/, "") + " · beam-hf-inference";
  show();
  listen();
} catch (error) {
  notice(error.message);
}
