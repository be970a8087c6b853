// Drift: whether a stability index says more than that samples are small.

/** Windows before one that it is compared with, pooled: as transforms/window_summary.py has it. */
export const BASELINE = 10;

/** What chi-squared of `k` degrees stays under 999 times in 1,000, by Wilson and Hilferty's cube. */
export function rare(k) {
  const part = 2 / (9 * k);
  return k * (1 - part + 3.0902 * Math.sqrt(part)) ** 3;
}

/**
 * The index that chance alone passes once in 1,000 times, for `n` messages against `m` over `categories`: twice the
 * Kullback-Leibler divergences is about chi-squared, so the index is about that times (1/n + 1/m).
 */
export const byChance = (n, m, categories) => n && m && categories > 1 ? rare(categories - 1) * (1 / n + 1 / m) : Infinity;

/** The same bar for a window's labels, from its row and the rows of its job before it. */
export function chanceOf(windows, index) {
  const here = windows[index], before = windows.slice(0, index).filter((w) => w.job === here.job && w.window_start < here.window_start).slice(-BASELINE);
  const names = new Set([here, ...before].flatMap((w) => Object.keys(w.labels || {})));
  const sum = (rows) => rows.reduce((all, w) => all + Object.values(w.labels || {}).reduce((a, b) => a + b, 0), 0);
  return byChance(sum([here]), sum(before), names.size);
}

/** [kind, words] of an index: steady, moving, shifted; or that so few messages tell nothing. */
export function verdict(psi, chance) {
  if (psi === null || psi === undefined) return ["", "–"];
  if (psi < 0.1) return ["good", "steady"];
  if (psi <= chance) return ["quiet", "too few to tell"];
  return psi < 0.25 ? ["warn", "moving"] : ["bad", "shifted"];
}
