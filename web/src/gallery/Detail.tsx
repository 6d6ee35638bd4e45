import { useEffect, useState } from "preact/hooks";

import { get, send, type ItemWithLabels, type Project } from "../api";
import { classOf, guessOf } from "../classes";
import { clock, count, percent, words } from "../format";
import { href } from "../route";
import { mayManage } from "../session";
import { viewerOf } from "../viewers";
import { aboutLoss, howServed } from "../why";

export function Detail({ project, id, close, step, changed }: { project: Project; id: string; close: () => void; step?: (by: number) => void; changed: () => void }) {
  const [item, setItem] = useState<ItemWithLabels | null>(null);
  const [refused, setRefused] = useState<string | null>(null);
  const at = `/projects/${project.id}`;
  const load = () => get<ItemWithLabels>(`${at}/items/${encodeURIComponent(id)}`).then(setItem, (error: Error) => setRefused(error.message));
  useEffect(() => void load(), [id]);
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
      if (event.key === "Escape") close();
      if (event.key === "ArrowRight") step?.(1);
      if (event.key === "ArrowLeft") step?.(-1);
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  });
  const act = async (path: string) => {
    try {
      await send("POST", path, { items: [id] });
      await load();
      changed();
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  const Full = item && viewerOf(item.content).Full;
  const aside = item !== null && !["available", "done"].includes(item.state);
  return (
    <aside class="detail" aria-label="Item" data-testid="detail">
      <header>
        {step && (
          <>
            <button onClick={() => step(-1)} aria-label="Previous item" title="Previous (←)">
              ←
            </button>
            <button onClick={() => step(1)} aria-label="Next item" title="Next (→)">
              →
            </button>
          </>
        )}
        <span class="mono" title={id}>
          {item?.key ?? id}
        </span>
        <button onClick={close} aria-label="Close" title="Close (Esc)">
          ✕
        </button>
      </header>
      {refused && <p class="notice bad">{refused}</p>}
      <div class="item">{item && Full && <Full content={item.content} name={item.key} />}</div>
      {item && (
        <>
          <h2>Why this item?</h2>
          {aboutItem(item).map((sentence) => (
            <p key={sentence}>{sentence}</p>
          ))}
          {item.duplicate_of && (
            <p>
              <a href={href(project.id, "gallery", { item: item.duplicate_of })}>Show the one that stands for it</a>
            </p>
          )}
          <p>
            <a href={href(project.id, "gallery", { like: item.id })}>More like this</a> · <a href={href(project.id, "gallery", { duplicate_of: item.id })}>Its duplicates</a> · <a href={href(project.id, "map", { item: item.id })}>On the map</a>
          </p>
          <h2>Labels</h2>
          {item.labels.length === 0 && <p class="quiet">Nobody has labeled it yet.</p>}
          <ul class="labels">
            {item.labels.map((label) => (
              <li key={`${label.annotator}/${label.revision}`} class={label.current ? "" : "replaced"}>
                <b dir="auto">{classOf(label) ?? (label.skip ? `skipped: ${label.skip}` : "withdrawn")}</b>
                <span dir="auto">{label.annotator}</span>
                <span class="quiet">{clock(label.created_at)}</span>
              </li>
            ))}
          </ul>
          {mayManage() && (
            <div class="row">
              <button onClick={() => void act(`${at}/queue`)}>Label next</button>
              {aside ? <button onClick={() => void act(`${at}/items/restore`)}>Restore</button> : <button onClick={() => void act(`${at}/items/withdraw`)}>Withdraw</button>}
            </div>
          )}
          <h2>Facts</h2>
          <dl class="facts">
            {Object.entries({ ...item.facts, split: item.split, state: item.state, imported: clock(item.created_at), uri: item.uri, ...item.meta }).map(([name, value]) => (
              <div key={name}>
                <dt>{words(name)}</dt>
                <dd class={name === "uri" ? "mono" : ""}>{typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>
              </div>
            ))}
          </dl>
        </>
      )}
    </aside>
  );
}

function aboutItem(item: ItemWithLabels): string[] {
  const said: string[] = [];
  if (item.split === "test") said.push("It belongs to the test split: heads are measured on it, and nobody is asked to label it.");
  if (item.gold) said.push("It is a gold item: its class is known for certain, and it tells how well annotators do.");
  if (item.state === "quarantined") said.push(`It is quarantined, never served: ${item.quarantine_reason ?? "its bytes cannot be read"}.`);
  if (item.state === "broken") said.push("Annotators rejected it as broken.");
  if (item.state === "withdrawn") said.push("It was withdrawn: nobody is asked for it, no head trains on it.");
  if (item.state === "done" && !item.gold) said.push(`It is done: its labels decided for “${classOf(item)}”.`);
  if (item.state === "available" && item.split === "pool") said.push("It is still to be labeled.");
  if (item.duplicate_of) said.push("Another item stands for it in rankings: the two are the same, or nearly.");
  if (item.barred_probability !== null) said.push(`The ranking leaves it for last: it looks like what annotators rejected (${percent(item.barred_probability, 0)} broken).`);
  if (item.rank !== null) said.push(`It is at place ${count(item.rank)} of the ranking.`);
  if (guessOf(item) !== null) said.push(`When the ranking was made, the head took it for “${guessOf(item)}” (${percent(item.predicted_probability, 0)}).`);
  said.push(...aboutLoss(item.pretext_loss, item.pretext_loss_percentile));
  said.push(...item.labels.filter((label) => label.revision === 1).map(howServed));
  return said;
}
