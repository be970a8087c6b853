// Three lights: the console itself, Pub/Sub, and the job; each with its own words.

import { h, fill, announce } from "./dom.js";

const place = document.getElementById("status");
let said = "";

/** `states` are [name, kind, words]: kind is good, warn, bad or unknown. */
function lights(states) {
  fill(place, states.map(([name, kind, words]) => h(`span.light.${kind}`, { "data-of": name, title: `${name}: ${words}` }, h("i.dot"), h("span.light-name", {}, name), h("span.light-words", {}, words))));
  // Said when a state changes; not with every second that its words count.
  const now = states.map(([name, kind]) => `${name} ${kind}`).join();
  if (said && now !== said) announce(states.map(([name, , words]) => `${name}: ${words}`).join("; "));
  said = now;
  place.classList.toggle("live", states[0][1] === "good" && states[1][1] !== "bad");
}

const KINDS = { working: "good", idle: "good", waiting: "unknown", silent: "bad", gone: "bad", unknown: "unknown" };

export function heard(figures) {
  const watched = Object.values(figures.watches), broken = watched.filter(Boolean).length;
  lights([
    ["console", "good", "live"],
    ["Pub/Sub", !watched.length ? "unknown" : broken ? "bad" : "good", !watched.length ? "not watched" : broken ? broken < watched.length ? "partly away" : "not live" : "live"],
    ["job", KINDS[figures.job.state], figures.job.words],
  ]);
}

export function lost() {
  lights([["console", "bad", "not live"], ["Pub/Sub", "unknown", "not known"], ["job", "unknown", "not known"]]);
}
