// Audit: the ready queries of docs/audit.md, the page's filter as SQL, and one's own.

import * as address from "./address.js";
import { about, get, post } from "./api.js";
import { copyButton } from "./copy.js";
import { h, fill, card, empty, announce, count } from "./dom.js";
import { answered } from "./table.js";

let output, editor, fields, ready, fromFilter;
/** What was typed and chosen stays when one goes away and comes back, and when the page is loaded again. */
let kept = JSON.parse(sessionStorage.getItem("audit") || "{}");
function keep() {
  kept = { sql: editor.value, chosen, values: values() };
  sessionStorage.setItem("audit", JSON.stringify(kept));
}
let chosen = null, last = null;

export async function start(root) {
  if (!about.names["audit table"]) {
    return fill(root, h("h1.sr", {}, "Audit"), empty("No audit table", "Start the console with --audit_table PROJECT:DATASET.TABLE: it has one row a message, and here it can be asked."));
  }
  output = h("div.stack");
  fields = h("div.fields");
  editor = h("textarea.sql", { id: "sql", rows: 7, spellcheck: "false", "aria-label": "SQL", readonly: !about.may_query,
    onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(); },
    oninput: () => { chosen = null; mark(); ask(); keep(); } });
  editor.value = kept.sql ?? `SELECT status, COUNT(*) AS messages\nFROM \`${about.names["audit table"]}\`\nGROUP BY status`;
  chosen = kept.chosen ?? null;
  ready = h("div.ready");
  fromFilter = h("button", { type: "button", hidden: true, onclick: useFilter }, "Put the filter into SQL");
  fill(root, h("h1.sr", {}, "Audit"), h("div.audit", {}, h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Ready queries")), ready),
    h("div.stack", {}, card("Query", about.may_query ? "reads only" : "one's own SQL needs --allow_query", editor, fields,
      h("div.toolbar.right", {}, fromFilter, copyButton(() => editor.value, "Copy SQL"), h("kbd", {}, "Ctrl"), h("kbd", {}, "Enter"), h("button.primary", { type: "button", onclick: run }, "Run"))), output)));
  ask(kept.values);
  filtered();
  fill(output, last ? answered(last) : empty("Nothing asked yet", "Pick a query, or write your own: rows come as a table, and as a plot where their columns allow one."));
  try {
    const { queries } = await get("/api/queries");
    fill(ready, queries.length ? queries.map((query) => h("button.query", { type: "button", "data-name": query.name, "aria-pressed": String(query.name === chosen), onclick: () => pick(query) }, h("strong", {}, query.name), query.about !== query.name && h("small", {}, query.about.slice(query.name.length).replace(/^\W+/, ""))))
      : h("p.note", {}, "docs/audit.md is not installed with this package."));
  } catch (error) {
    fill(ready, h("p.problem", {}, error.message));
  }
  return null;
}

export function update() {}

export function filtered() {
  if (fromFilter) fromFilter.hidden = !address.read().q || !about.may_query;
}

async function useFilter() {
  try {
    editor.value = (await get(`/api/sql?${new URLSearchParams({ q: address.read().q })}`)).sql;
    chosen = null;
    mark();
    ask();
    run();
  } catch (error) {
    fill(output, h("section.card", {}, h("p.problem", { role: "alert" }, error.message)));
  }
}

function pick(query) {
  chosen = query.name;
  editor.value = query.sql;
  mark();
  fill(fields);
  ask();
  if (Object.values(values()).every(Boolean)) run();
  else fill(output, empty("One thing more", "Fill in what the query asks for, and run it."));
  const first = [...fields.querySelectorAll("input")].find((input) => !input.value);
  first?.focus({ preventScroll: true });
  (first || output).scrollIntoView({ block: "nearest" });
}

/** Shows which of the ready queries the box holds. */
function mark() {
  for (const button of ready.querySelectorAll(".query")) button.setAttribute("aria-pressed", String(button.dataset.name === chosen));
}

/** A box for each @parameter of the query; times are in UTC. */
function ask(given = values()) {
  const names = [...new Set([...editor.value.matchAll(/(?<!@)@([a-z_]\w*)/gi)].map((found) => found[1]))];
  fill(fields, names.map((name) => h("label", {}, `@${name}`, h("input", { "data-name": name, value: given[name] ?? suggest(name), oninput: keep }))));
}

const suggest = (name) => /(^|_)(to|end|until)$/.test(name) ? new Date(Date.now() + 60_000).toISOString() : /(^|_)(time|from|start|since|timestamp)$/.test(name) ? new Date(Date.now() - 3_600_000).toISOString() : /hours|days|minutes|limit/.test(name) ? "24" : "";
const values = () => Object.fromEntries([...fields.querySelectorAll("input")].map((input) => [input.dataset.name, input.value]));

let turn = 0;
async function run() {
  const mine = ++turn;
  keep();
  fill(output, h("div.empty", {}, h("i.spinner"), " running"));
  try {
    const body = chosen ? { name: chosen, parameters: values() } : { sql: editor.value, parameters: values() };
    const answer = await post("/api/query", body);
    if (mine !== turn) return;
    last = answer;
    fill(output, answered(last));
    announce(`${count(last.total)} rows`);
  } catch (error) {
    if (mine !== turn) return;
    last = null;
    fill(output, h("section.card", {}, h("p.problem", { role: "alert" }, error.message)));
  }
  if (output.getBoundingClientRect().top > innerHeight - 120) output.scrollIntoView({ block: "start" });
}
