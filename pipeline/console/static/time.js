// Time as the page tells it: in UTC or in this machine's zone, by one switch for the whole page, and always said.

const KEY = "zone";
let local = localStorage.getItem(KEY) === "local";
const listeners = new Set();

/** How far the page's zone is from UTC, in seconds: for all of its times as it is now, on either side of a change of clocks. */
const offsetNow = () => local ? -60 * new Date().getTimezoneOffset() : 0;
let offset = offsetNow();

/** "UTC", or this machine's zone: "UTC+02:00". */
export function zone() {
  if (!local) return "UTC";
  const minutes = Math.abs(offset) / 60;
  return `UTC${offset < 0 ? "−" : "+"}${pad(Math.floor(minutes / 60))}:${pad(minutes % 60)}`;
}

export const onZone = (listener) => listeners.add(listener);

export function switchZone() {
  local = !local;
  offset = offsetNow();
  localStorage.setItem(KEY, local ? "local" : "utc");
  for (const listener of listeners) listener();
}

const pad = (n) => String(n).padStart(2, "0");

function parts(seconds) {
  const at = new Date((seconds + offset) * 1000);
  return [at.getUTCFullYear(), at.getUTCMonth() + 1, at.getUTCDate(), at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()];
}

/** 12:03:04, in the page's zone. */
export function clock(seconds) {
  if (!seconds) return "–";
  return parts(seconds).slice(3).map(pad).join(":");
}

/** 12:03, and the day before it where `withDay`. */
export function minute(seconds, withDay = false) {
  const [, month, day, hour, min] = parts(seconds);
  return `${withDay ? `${pad(month)}-${pad(day)} ` : ""}${pad(hour)}:${pad(min)}`;
}

/** 2026-01-31 12:03:04 UTC: for a title, where the zone is not said beside it. */
export function full(seconds) {
  if (!seconds) return "–";
  const [year, month, day, ...rest] = parts(seconds);
  return `${year}-${pad(month)}-${pad(day)} ${rest.map(pad).join(":")} ${zone()}`;
}

/** A time of a table, as ISO text, in the page's zone without its name: the column's head says it. */
export function ofTable(text) {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) return String(text);
  const [year, month, day, ...rest] = parts(ms / 1000);
  const fraction = /\.(\d{1,6})/.exec(text);
  return `${year}-${pad(month)}-${pad(day)} ${rest.map(pad).join(":")}${fraction ? `.${fraction[1].slice(0, 3)}` : ""}`;
}

/** A time as the filter language has it, which knows UTC alone. */
export const inFilter = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`;

/** "3 min ago", for a person. */
export function ago(seconds, now = Date.now() / 1000) {
  const age = Math.max(0, now - seconds);
  if (age < 90) return `${Math.round(age)} s ago`;
  return age < 5400 ? `${Math.round(age / 60)} min ago` : age < 172_800 ? `${Math.round(age / 3600)} h ago` : `${Math.round(age / 86_400)} days ago`;
}
