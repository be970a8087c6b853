// A query's answer as a table, and as a plot where its columns allow one.

import { bars } from "./charts.js";
import { saveButtons } from "./copy.js";
import { h, card, count, cut, bytes, empty } from "./dom.js";
import { Lines } from "./lines.js";
import { storyLink } from "./story.js";
import { ofTable, zone } from "./time.js";

const NUMBERS = new Set(["INTEGER", "INT64", "FLOAT", "FLOAT64", "NUMERIC", "BIGNUMERIC"]);
const TIMES = new Set(["TIMESTAMP", "DATETIME", "DATE"]);

export function answered({ columns, rows, total, bytes: read }) {
  const shown = rows.slice(0, 500);
  const objects = () => rows.map((row) => Object.fromEntries(columns.map((column, i) => [column.name, row[i]])));
  return [plot(columns, rows), h("section.card", {}, h("div.card-head", {}, h("h2", {}, `${count(total)} row${total === 1 ? "" : "s"}`), h("span.note", {}, [shown.length < total && `the first ${count(shown.length)} are shown`, rows.length < total && `${count(rows.length)} were read`, read && `${bytes(read)} read`].filter(Boolean).join("; ")), rows.length > 0 && saveButtons("query", objects)),
    rows.length ? h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Rows" }, h("table", {}, h("thead", {}, h("tr", {}, columns.map((column) => h(NUMBERS.has(column.type) ? "th.number" : "th", { scope: "col" }, column.name, column.type === "TIMESTAMP" && h("small", {}, ` ${zone()}`))))),
      h("tbody", {}, shown.map((row) => h("tr", {}, row.map((value, i) => td(cell(value, columns[i]), columns[i].type)))))))
      : empty("No rows", "The query ran and found nothing."))];
}

/** Words keep together; what is one long word, such as a hash, may break. */
const td = (shown, type) => h(NUMBERS.has(type) ? "td.number" : TIMES.has(type) || shown instanceof Node || shown.length < 24 ? "td.short" : /\S{36}/.test(shown) ? "td.long" : "td", { dir: "auto" }, shown);

function cell(value, { name, type }) {
  if (value === null) return h("span.null", {}, "null");
  if (name === "message_id" && typeof value === "string") return storyLink(value);
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(+value.toPrecision(5));
  if (type === "TIMESTAMP") return ofTable(value);
  const text = typeof value === "object" ? JSON.stringify(value) : type === "DATETIME" ? String(value).replace("T", " ") : String(value);
  return cut(text, 200);
}

/** Lines where the first column is a time, bars where it is a name (or several in a row are one); else nothing. */
function plot(columns, rows) {
  const numbers = columns.map((column, i) => i).filter((i) => NUMBERS.has(columns[i].type));
  if (rows.length < 2 || !numbers.length) return null;
  if (TIMES.has(columns[0].type)) {
    const points = rows.map((row) => [Date.parse(row[0]) / 1000, ...numbers.map((i) => row[i] === null ? null : Number(row[i]))]).sort((a, b) => a[0] - b[0]);
    if (new Set(points.map((point) => point[0])).size !== points.length) return null;
    const steps = points.slice(1).map((p, i) => p[0] - points[i][0]).sort((a, b) => a - b);
    const chart = new Lines(`By ${columns[0].name}`, numbers.slice(0, 4).map((i, place) => ({ name: columns[i].name, className: `c${place + 1}`, at: place + 1 })), { gap: 1.5 * steps[Math.floor(steps.length / 2)] });
    setTimeout(() => chart.draw(points));
    return h("section.card", {}, chart.element);
  }
  const names = columns.findIndex((column) => column.type !== "STRING");
  if (names < 1 || rows.length > 40) return null;
  const counts = Object.fromEntries(rows.map((row) => [row.slice(0, names).map((each) => each ?? "null").join(" · "), Number(row[numbers[0]]) || 0]));
  return Object.keys(counts).length === rows.length ? card(`${columns[numbers[0]].name} by ${columns.slice(0, names).map((column) => column.name).join(", ")}`, null, bars(counts, { limit: 20 })) : null;
}
