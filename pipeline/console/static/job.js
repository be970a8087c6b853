// The job, at the top of the page: what serves, since when, and its last log lines.

import { about } from "./api.js";
import { h, fill, count, ms } from "./dom.js";
import { ago, full } from "./time.js";

/** As much of a revision as tells it apart. */
export const revisionOf = (revision) => revision.length > 20 ? `${revision.slice(0, 16)}…` : revision;
const last = (name) => name?.split("/").at(-1);

/** What the job does: of a models file its models' tasks, else what its results and its card say. */
export function tasksOf({ task, metrics }) {
  const models = Object.values(metrics?.models?.models || {}).map((each) => each.task);
  return [...new Set(models.length ? models : [task || metrics?.job?.task])].filter(Boolean);
}

/** Tells only what the job wrote of itself (`--metrics_file`) and what its results say. */
export function show(place, { figures }) {
  const job = figures.metrics?.job || {}, models = figures.models, log = figures.metrics?.log || [], tasks = tasksOf(figures);
  const gone = figures.job.state === "gone";
  const open = place.querySelector("details")?.open;
  const facts = [
    models.length
      ? ["Model", models.map(([model, revision, variant, n]) => h("span.model", { title: `${model} ${revision}: ${count(n)} of the results kept` }, last(model), revision && h("code", {}, ` ${revisionOf(revision)}`), (variant || models.length > 1) && h("small", {}, ` ${variant ? `variant ${variant}, ` : ""}${count(n)} results`)))]
      : job.model && ["Model", `${last(job.model)}, no result yet`],
    tasks.length > 0 && [tasks.length > 1 ? "Tasks" : "Task", tasks.join(", ")],
    job.engine && ["Engine", job.engine],
    job.device && ["Device", job.device],
    job.endpoint && ["Endpoint", job.endpoint],
    (job.subscription || about.names["input topic"]) && [job.subscription ? "Reads" : "Input topic", h("span", { title: job.subscription || about.names["input topic"] }, last(job.subscription || about.names["input topic"]))],
    job.started && [gone ? "Started" : "Running since", h("span", { title: full(job.started) }, `${full(job.started)}, ${ago(job.started, figures.now)}`)],
    gone && ["Last heard of", `${ms(1000 * figures.metrics.age_s)} ago`],
    job.models && ["Models file", h("span", { title: job.models }, last(job.models))],
  ].filter(Boolean);
  fill(place, h("h2.sr", {}, "The job"), h("dl.facts", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value)))),
    log.length > 0 && h("details", { open }, h("summary", {}, `Its last log line${log.length === 1 ? "" : `s, ${log.length}`}`), h("pre.log", { tabindex: 0, dir: "auto" }, log.join("\n"))),
    !figures.metrics && h("p.note", {}, about.names["metrics file"] ? `The job has not written ${about.names["metrics file"]} yet.` : "Start job and console with the same --metrics_file to see its device, since when it runs, and its log."));
}
