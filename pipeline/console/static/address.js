// The page's address: #VIEW/message/ID?q=FILTER. All that one would want to send to a colleague stands in it.

export const VIEWS = ["flow", "try", "results", "dead-letters", "windows", "audit"];

export function read(hash = location.hash) {
  const [, path, query] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  const parts = path.split("/"), given = new URLSearchParams(query);
  const at = parts.indexOf("message");
  return {
    view: VIEWS.includes(parts[0]) ? parts[0] : "flow",
    message: at >= 0 && parts[at + 1] ? decode(parts[at + 1]) : null,
    q: given.get("q") || "",
    step: given.get("step") || "",
  };
}

const decode = (text) => { try { return decodeURIComponent(text); } catch { return text; } };

export function write({ view, message = null, q = "", step = "" }) {
  const given = new URLSearchParams();
  if (q) given.set("q", q);
  if (step) given.set("step", step);
  const query = given.toString();
  return `#${view}${message ? `/message/${encodeURIComponent(message)}` : ""}${query ? `?${query}` : ""}`;
}

/** The address of one message, seen from where the page is. */
export const messageAt = (id) => write({ ...read(), message: id });

/** Goes to what `change` alters of the address; without a trace in the history if `quietly`. */
export function go(change, quietly = false) {
  const next = write({ ...read(), ...change });
  if (next === location.hash) return;
  if (!quietly) location.hash = next;
  else {
    history.replaceState(null, "", next);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}
