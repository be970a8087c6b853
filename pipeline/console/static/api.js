// The console's own requests. Changes carry the token that only a page of this origin can read.

export const about = {};

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error("the console does not answer: has it been stopped?"), { away: true });
  }
  const body = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok && body.error) throw new Error(body.error);
  return body;
}

export const get = (path) => ask(path);

export const post = (path, body) => ask(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Console-Token": about.token },
  body: JSON.stringify(body),
});

export async function load() {
  Object.assign(about, await get("/api/about"));
}
