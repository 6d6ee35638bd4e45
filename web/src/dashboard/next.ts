// What to do next, in one sentence, and why.

import type { Metrics, Project } from "../api";
import { count, duration, plural, words } from "../format";

export interface Step {
  kind: "import" | "label" | "wait" | "stop" | "paused" | "pretrain";
  sentence: string;
  why: string;
}

export function nextStep(project: Project, metrics: Metrics): Step {
  const { advice, budget, labels_used: used } = metrics;
  const running = metrics.jobs.find((job) => job.state === "running");
  const stuck = metrics.waiting[0];
  if (project.state === "archived") return { kind: "stop", sentence: "This project is archived.", why: "Everything can be read and exported; nothing changes any more." };
  if (project.state === "paused") return { kind: "paused", sentence: "This project is paused.", why: "Nothing is served until it is active again; labels for what annotators hold are taken." };
  if (metrics.pool_items === 0) {
    if (metrics.jobs.some((job) => job.kind === "import_source")) return { kind: "wait", sentence: "Wait: items are being imported.", why: running?.message ?? "They can be labeled within seconds." };
    return { kind: "import", sentence: "Import items.", why: "There is nothing to label yet. Give a folder, a table or a bucket that the service may read." };
  }
  if (budget !== null && used >= budget) return { kind: "stop", sentence: "Stop labeling: the budget is spent.", why: `${plural(used, "label")} of ${count(budget)} are in. Raise the budget to go on, or export the labels.` };
  if (metrics.items.available === 0) return { kind: "stop", sentence: "Everything is labeled.", why: "Import more items, or export the labels." };
  if (advice.text.includes("You can stop here")) return { kind: "stop", sentence: "You can stop labeling.", why: advice.text };
  const left = metrics.round_size - metrics.round_labels;
  const rest = budget === null ? "" : ` ${plural(budget - used, "label")} are left in the budget${metrics.label_rate.last_hour ? `, at today’s pace ${duration((3600 * (budget - used)) / metrics.label_rate.last_hour)} of labeling` : ""}.`;
  const slow = stuck ? ` A job ${words(stuck.kind)} waits for ${stuck.waits_for}.` : "";
  if (!metrics.score_run && !running && !stuck) return { kind: "pretrain", sentence: "Label, and start pretraining.", why: "Items are served at random until there is a ranking. Pretraining finds what is worth a label first." };
  return { kind: "label", sentence: `Label ${count(left)} more to close round ${metrics.round}.`, why: `${advice.text}${rest}${slow}` };
}
