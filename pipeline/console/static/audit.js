// Audit: the ready queries of docs/audit.md, one's own SQL, and what they answer as a table and a plot.

import { about, get, post } from "./api.js";
import { Lines, bars } from "./charts.js";
import { h, fill, card, empty, count, bytes } from "./dom.js";

let output, editor, fields, ready;

export async function start(root) {
  if (!about.names["audit table"]) {
    return fill(root, h("h1.sr", {}, "Audit"), empty("No audit table", "Start the console with --audit_table PROJECT:DATASET.TABLE."));
  }
  output = h("div.stack", { "aria-live": "polite" });
  fields = h("div.fields");
  editor = h("textarea.sql", { id: "sql", rows: 7, spellcheck: "false", "aria-label": "SQL", readonly: !about.may_query,
    onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(); },
    oninput: () => { chosen = null; mark(); ask(); } });
  editor.value = `SELECT status, COUNT(*) AS messages\nFROM \`${about.names["audit table"]}\`\nGROUP BY status`;
  ready = h("div.ready");
  chosen = null;
  fill(root, h("h1.sr", {}, "Audit"), h("div.audit", {}, h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Ready queries")), ready),
    h("div.stack", {}, card("Query", about.may_query ? "reads only" : "one's own SQL needs --allow_query", editor, fields,
      h("div.toolbar.right", {}, h("kbd", {}, "Ctrl"), h("kbd", {}, "Enter"), h("button.primary", { type: "button", onclick: run }, "Run"))), output)));
  fill(output, empty("Nothing asked yet", "Pick a query, or write your own."));
  try {
    const { queries } = await get("/api/queries");
    fill(ready, queries.length ? queries.map((query) => h("button.query", { type: "button", "data-name": query.name, "aria-pressed": "false", onclick: () => pick(query) }, h("strong", {}, query.name), query.about !== query.name && h("small", {}, query.about.slice(query.name.length).replace(/^\W+/, ""))))
      : h("p.note", {}, "docs/audit.md is not installed with this package."));
  } catch (error) {
    fill(ready, h("p.problem", {}, error.message));
  }
}

export function update() {}

let chosen = null;
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

/** A box for each @parameter of the query. */
function ask() {
  const names = [...new Set([...editor.value.matchAll(/(?<!@)@([a-z_]\w*)/gi)].map((found) => found[1]))];
  const before = values();
  fill(fields, names.map((name) => h("label", {}, `@${name}`, h("input", { "data-name": name, value: before[name] ?? suggest(name) }))));
}

const suggest = (name) => /(^|_)(to|end|until)$/.test(name) ? new Date(Date.now() + 60_000).toISOString() : /(^|_)(time|from|start|since|timestamp)$/.test(name) ? new Date(Date.now() - 3_600_000).toISOString() : /hours|days|minutes|limit/.test(name) ? "24" : "";
const values = () => Object.fromEntries([...fields.querySelectorAll("input")].map((input) => [input.dataset.name, input.value]));

async function run() {
  fill(output, h("div.empty", {}, h("i.spinner"), " running"));
  try {
    const body = chosen ? { name: chosen, parameters: values() } : { sql: editor.value, parameters: values() };
    show(await post("/api/query", body));
  } catch (error) {
    fill(output, h("section.card", {}, h("p.problem", { role: "alert" }, error.message)));
  }
  if (output.getBoundingClientRect().top > innerHeight - 120) output.scrollIntoView({ block: "start" });
}

const NUMBERS = new Set(["INTEGER", "INT64", "FLOAT", "FLOAT64", "NUMERIC", "BIGNUMERIC"]);
const TIMES = new Set(["TIMESTAMP", "DATETIME", "DATE"]);

function show({ columns, rows, total, bytes: read }) {
  const shape = plot(columns, rows), shown = rows.slice(0, 500);
  fill(output, shape, card(`${count(total)} row${total === 1 ? "" : "s"}`, [shown.length < total && `the first ${count(shown.length)} are shown`, read && `${bytes(read)} read`].filter(Boolean).join("; "),
    rows.length ? h("div.scroll", { tabindex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, columns.map((column) => h(NUMBERS.has(column.type) ? "th.number" : "th", {}, column.name)))),
      h("tbody", {}, shown.map((row) => h("tr", {}, row.map((value, i) => td(cell(value, columns[i].type), columns[i].type)))))))
      : empty("No rows", "The query ran and found nothing.")));
}

/** Words keep together; what is one long word, such as a hash, may break. */
const td = (shown, type) => h(NUMBERS.has(type) ? "td.number" : TIMES.has(type) || String(shown).length < 24 ? "td.short" : /\S{36}/.test(shown) ? "td.long" : "td", {}, shown);

function cell(value, type) {
  if (value === null) return h("span.null", {}, "null");
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(+value.toPrecision(5));
  const text = typeof value === "object" ? JSON.stringify(value) : TIMES.has(type) ? String(value).replace("T", " ").replace("+00:00", "") : String(value);
  return text.length > 200 ? `${text.slice(0, 199)}…` : text;
}

/** Lines where the first column is a time, bars where it is a name (or several in a row are one); else nothing. */
function plot(columns, rows) {
  const numbers = columns.map((column, i) => i).filter((i) => NUMBERS.has(columns[i].type));
  if (rows.length < 2 || !numbers.length) return null;
  if (TIMES.has(columns[0].type)) {
    const points = rows.map((row) => [Date.parse(row[0]) / 1000, ...numbers.map((i) => row[i])]).sort((a, b) => a[0] - b[0]);
    if (new Set(points.map((point) => point[0])).size !== points.length) return null;
    const from = points[0][0] > points.at(-1)[0] - 3600 ? [11, 19] : [5, 16];
    const chart = new Lines(`By ${columns[0].name}`, numbers.slice(0, 4).map((i, place) => ({ name: columns[i].name, className: `c${place + 1}`, at: place + 1 })), { window: 1000, tick: (p) => new Date(p[0] * 1000).toISOString().slice(...from).replace("T", " ") });
    chart.draw(points);
    return h("section.card", {}, chart.element);
  }
  const names = columns.findIndex((column) => column.type !== "STRING");
  if (names < 1 || rows.length > 40) return null;
  const counts = Object.fromEntries(rows.map((row) => [row.slice(0, names).map((each) => each ?? "null").join(" · "), row[numbers[0]]]));
  return Object.keys(counts).length === rows.length ? card(`${columns[numbers[0]].name} by ${columns.slice(0, names).map((column) => column.name).join(", ")}`, null, bars(counts, 20)) : null;
}
