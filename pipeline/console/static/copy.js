// Copies and downloads of what is shown.

import { h } from "./dom.js";

/** A button that copies what `text` gives. */
export function copyButton(text, name = "Copy") {
  const button = h("button.copy", { type: "button", onclick: async () => {
    const what = typeof text === "function" ? text() : text;
    try {
      await navigator.clipboard.writeText(what);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied: the browser forbids it";
    }
    setTimeout(() => { button.textContent = name; }, 1500);
  } }, name);
  return button;
}

/** Buttons that save `rows()`, a list of objects, as CSV and as JSON; `more` stands before them. */
export function saveButtons(name, rows, more = null) {
  return h("span.saves", {}, more,
    h("button", { type: "button", onclick: () => save(`${name}.csv`, "text/csv", csv(rows())) }, "CSV"),
    h("button", { type: "button", onclick: () => save(`${name}.json`, "application/json", JSON.stringify(rows(), null, 1)) }, "JSON"));
}

/** RFC 4180. A text that a spreadsheet would take for a formula is marked as text: it came in a message. A number is none. */
export function csv(rows) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    let text = typeof value === "object" ? JSON.stringify(value) : String(value);
    if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text) && /^[=+\-@\t\r\n＝＋－＠]/.test(text)) text = `'${text}`;
    // Where the comma is for decimals a spreadsheet parts the line at semicolons, others at tabs.
    return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names.map(cell), ...rows.map((row) => names.map((each) => cell(row[each])))].map((line) => line.join(",")).join("\r\n") + "\r\n";
}

function save(name, type, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
