// The page: one view at a time, chosen by the address after #, fed by one stream of events.

import * as address from "./address.js";
import { about, load } from "./api.js";
import { fill, h, count } from "./dom.js";
import * as filter from "./filter.js";
import * as flow from "./flow.js";
import * as tryIt from "./try.js";
import * as results from "./results.js";
import * as letters from "./letters.js";
import * as windows from "./windows.js";
import * as audit from "./audit.js";
import * as status from "./status.js";
import { follow } from "./story.js";
import { onZone, switchZone, zone } from "./time.js";

const VIEWS = { flow, try: tryIt, results, "dead-letters": letters, windows, audit };
const HISTORY = 3600;
const NEWEST = 100;
/** An event comes every second; so long without one, and what is shown is old. */
const SILENT_MS = 6000;

/** What the stream told so far; views read it and never write it. */
export const state = { points: [], newest: [], figures: null };

const main = document.getElementById("view");
let current = null, q = null, step = null;

function show() {
  const now = address.read(), view = VIEWS[now.view];
  for (const link of document.querySelectorAll("nav a")) {
    const name = link.dataset.view;
    // The filter goes along from view to view.
    link.setAttribute("href", address.write({ view: name, q: now.q }));
    if (name === now.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  filter.show();
  document.getElementById("filter").hidden = now.view === "try";
  if (current !== view) {
    current?.leave?.();
    // A view's module may hold some of its elements until it is shown again, but not what was in them.
    for (const each of main.querySelectorAll("*")) each.replaceChildren();
    current = view;
    start();
    document.querySelector("nav a[aria-current]").scrollIntoView({ block: "nearest", inline: "nearest" });
  } else if (now.q !== q || now.step !== step) view.filtered();
  ({ q, step } = now);
  follow();
}

function start() {
  fill(main, h("div.view"));
  current.start(main.firstChild, state);
  if (state.figures) current.update(state, []);
}

let silence = 0;
function heard(event) {
  clearTimeout(silence);
  silence = setTimeout(lost, SILENT_MS);
  const figures = JSON.parse(event.data);
  state.points.push(...figures.points);
  state.points.splice(0, state.points.length - HISTORY);
  state.newest.unshift(...figures.newest);
  state.newest.length = Math.min(state.newest.length, NEWEST);
  state.figures = figures;
  const dead = figures.cases.waiting || 0, badge = document.getElementById("dead-badge");
  badge.hidden = !dead;
  badge.textContent = count(dead);
  badge.title = `${count(dead)} waiting`;
  const errors = {};
  for (const [name, error] of Object.entries(figures.watches)) if (error) (errors[error] ||= []).push(name.replace("_", " "));
  notice(Object.entries(errors).map(([error, names]) => `Pub/Sub, ${names.join(", ")}: ${error}`).join(" · "));
  status.heard(figures);
  if (!document.hidden) current?.update(state, figures.newest);
}

function notice(words) {
  const element = document.getElementById("notice");
  if (element.textContent === words) return;
  element.hidden = !words;
  element.textContent = words;
}

function lost() {
  status.lost();
  notice("The console does not answer. What is shown is as it was; it goes on when the console is back.");
}

let opened = false;
function listen() {
  const events = new EventSource("/api/events");
  events.onopen = async () => {
    // After a break the stream begins anew with all there is, perhaps from another console with another token.
    if (opened) {
      Object.assign(state, { points: [], newest: [] });
      await load().catch(() => {});
      // What could not be asked meanwhile is asked again.
      if (current) start();
    }
    opened = true;
  };
  events.onmessage = heard;
  events.onerror = () => {
    clearTimeout(silence);
    lost();
    // Refused connections are tried again by the browser, refusing answers are not.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

const zones = document.getElementById("zone");
function tellZone() {
  fill(zones, h("span.zone-word", {}, "Times: "), zone());
  zones.setAttribute("aria-label", `Times are in ${zone()}: switch between UTC and this machine's zone`);
}
zones.addEventListener("click", switchZone);
onZone(() => { tellZone(); if (current) start(); });
tellZone();

// What sticks below the header has to know where that ends.
const header = document.querySelector("header");
new ResizeObserver(() => document.documentElement.style.setProperty("--head", `${header.offsetHeight}px`)).observe(header);

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
  main.scrollIntoView();
});
window.addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => { if (!document.hidden && state.figures) current?.update(state, []); });

try {
  await load();
  document.title = `${about.names["input topic"]?.split("/").at(-1)?.replace(/-input$/, "") ?? "console"} · beam-hf-inference`;
  filter.mount(document.getElementById("filter"));
  show();
  listen();
} catch (error) {
  notice(error.message);
}
