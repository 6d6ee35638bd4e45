// Why an item was served, in words.

import type { BatchItem, ItemWithLabels } from "./api";
import { count, percent } from "./format";

const WAYS: Record<string, string> = {
  random: "It was drawn at random",
  queue: "Somebody put it into the queue",
};

export function inWords(item: BatchItem): string[] {
  const { why, arm } = item;
  const said: string[] = [];
  if (arm === "control") said.push("It was drawn at random, as a control item: on such items the accuracy is measured, and random selection compared.");
  else if (arm === "queued") said.push("Somebody put it into the queue, to be labeled before the ranking.");
  else if (why.ranking !== null) {
    const head = why.head === null ? "before there was a head" : `with head ${why.head}`;
    said.push(`The strategy “${why.strategy}” put it ${item.rank === null ? "into" : `at place ${count(item.rank)} of`} ranking ${why.ranking}, ${head}.`);
  } else said.push(`${WAYS[why.strategy] ?? "It was served before there was a ranking"}.`);
  said.push(...aboutLoss(why.pretext_loss, why.pretext_loss_percentile));
  if (item.prediction && item.prediction.head !== null) said.push(`Head ${item.prediction.head} gave its best guess ${percent(item.prediction.probability, 0)}.`);
  return said;
}

export function aboutLoss(loss: number | null, percentile: number | null): string[] {
  if (loss === null || percentile === null) return [];
  const place = percentile >= 50 ? `higher than that of ${Math.floor(percentile)}\u00a0%` : `lower than that of ${Math.floor(100 - percentile)}\u00a0%`;
  return [`Its pretext loss is ${loss.toPrecision(3)}, ${place} of the items.`];
}

const SERVED: Record<string, string> = {
  selected: "picked by the ranking",
  control: "drawn at random, as a control item",
  queued: "from the queue",
  gold: "as a gold item, to see how well they do",
};

/** How an item came to somebody who labeled it. */
export function howServed(label: ItemWithLabels["labels"][number]): string {
  if (label.arm === "imported") return `In round ${label.round} a label by ${label.annotator} came in that nobody had been asked for.`;
  const ranking = label.arm === "selected" && label.ranking ? ` ${label.ranking}` : "";
  return `In round ${label.round} it was served to ${label.annotator}, ${SERVED[label.arm] ?? label.arm}${ranking}.`;
}
