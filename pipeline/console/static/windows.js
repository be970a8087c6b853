// Windows: one summary a window, against the windows before it.

import { about, get } from "./api.js";
import { Lines, stacked } from "./charts.js";
import { h, fill, card, empty, count, ms } from "./dom.js";

const EVERY_MS = 5000;
let root, asked = 0, drawn = "";

export function start(element) {
  root = element;
  drawn = "";
  asked = 0;
  fill(root, h("h1.sr", {}, "Windows"), empty("Looking", "reading the summary table"));
}

export async function update() {
  if (Date.now() < asked + EVERY_MS) return;
  asked = Date.now();
  const mine = root;
  try {
    const { windows } = await get("/api/summaries");
    if (JSON.stringify(windows) === drawn || mine !== root) return;
    drawn = JSON.stringify(windows);
    show(windows);
  } catch (error) {
    fill(root, empty("The summary table cannot be read", error.message));
  }
}

const time = (text) => new Date(text).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const drift = (psi) => psi === null ? ["", "–"] : psi < 0.1 ? ["good", "steady"] : psi < 0.25 ? ["warn", "moving"] : ["bad", "shifted"];

function show(windows) {
  if (!windows) return fill(root, h("h1.sr", {}, "Windows"), empty("No summary table", "Start the job and the console with --summary_table to see how windows differ."));
  if (!windows.length) return fill(root, h("h1.sr", {}, "Windows"), empty("No window has ended yet", `Summaries are written to ${about.names["summary table"]} once a window is over.`));
  const points = windows.map((w) => [Date.parse(w.window_start) / 1000, w.psi_label, w.psi_score, w.psi_input_bytes, w.messages, w.dead_letters, w.latency_p50_ms, w.latency_p99_ms, w.score_p50]);
  const tick = (p) => time(p[0] * 1000);
  const lines = (title, series, options) => { const chart = new Lines(title, series, { ...options, tick, window: 200 }); chart.draw(points); return h("section.card", {}, chart.element); };
  const columns = windows.slice(-40).map((w) => ({ tick: time(w.window_start), shares: w.labels || {} }));
  fill(root, h("h1.sr", {}, "Windows"),
    h("div.two", {},
      h("section.card", {}, stacked("Labels by window", columns)),
      lines("Drift: population stability index", [
        { name: "label", className: "c1", at: 1 }, { name: "score", className: "c3", at: 2 }, { name: "input length", className: "c2", at: 3 }], { marks: [0.1, 0.25] }),
      lines("Messages", [{ name: "all", className: "c1", at: 4 }, { name: "dead letters", className: "bad", at: 5 }], { area: true }),
      lines("Latency", [{ name: "p50", className: "c1", at: 6 }, { name: "p99", className: "c4", at: 7 }], { format: ms })),
    card("Windows", "stability index of the labels: under 0.1 steady, over 0.25 shifted", h("div.scroll", { tabindex: 0 }, h("table", {},
      h("thead", {}, h("tr", {}, [["Window"], ["Messages", 1], ["Dead letters", 1], ["First label"], ["Score p50", 1], ["Latency p50", 1], ["Input p50", 1], ["PSI label", 1], ["Labels"]].map(([each, number]) => h(number ? "th.number" : "th", {}, each)))),
      h("tbody", {}, windows.slice().reverse().slice(0, 60).map((w) => {
        const [kind, words] = drift(w.psi_label);
        const first = Object.entries(w.labels || {}).sort((a, b) => b[1] - a[1])[0];
        return h("tr", {}, h("td.short", {}, `${time(w.window_start)} – ${time(w.window_end)}`), h("td.number", {}, count(w.messages)), h("td.number", {}, count(w.dead_letters)),
          h("td.short", {}, first ? `${first[0]} ${(100 * first[1] / Object.values(w.labels).reduce((a, b) => a + b, 0)).toFixed(0)} %` : "–"),
          h("td.number", {}, w.score_p50?.toFixed(3) ?? "–"), h("td.number", {}, ms(w.latency_p50_ms)), h("td.number", {}, w.input_bytes_p50 === null ? "–" : `${count(w.input_bytes_p50)} B`),
          h("td.number", {}, w.psi_label?.toFixed(3) ?? "–"), h("td", {}, kind && h(`span.pill.${kind}`, {}, words)));
      }))))));
}
