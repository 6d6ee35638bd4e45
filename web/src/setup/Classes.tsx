// The classes of a project: what has each, and their changes, whose effects are said before they are made.

import { useEffect, useState } from "preact/hooks";

import { get, send, type ClassChange, type ClassChangeDone, type ClassUse, type Page } from "../api";
import { ago, count, plural } from "../format";
import { href } from "../route";

interface Change {
  kind: "rename" | "merge" | "add" | "remove";
  classes: string[];
  to?: string;
}

export function Classes({ project, onChange }: { project: string; onChange: () => void }) {
  const at = `/projects/${project}`;
  const [uses, setUses] = useState<ClassUse[] | null>(null);
  const [past, setPast] = useState<ClassChange[]>([]);
  const [chosen, setChosen] = useState<string[]>([]);
  const [name, setName] = useState("");
  const [tried, setTried] = useState<{ change: Change; says: string[] } | null>(null);
  const [refused, setRefused] = useState<string | null>(null);
  const load = async () => {
    const [found, changes] = await Promise.all([get<Page<ClassUse>>(`${at}/classes`), get<Page<ClassChange>>(`${at}/classes/changes`, { limit: 5 })]);
    setUses(found.items);
    setPast(changes.items);
  };
  useEffect(() => void load().catch((error: Error) => setRefused(error.message)), [project]);
  const ask = async (change: Change) => {
    setRefused(null);
    try {
      const { says } = await send<ClassChangeDone>("POST", `${at}/classes/changes?dry_run=true`, change);
      setTried({ change, says });
    } catch (error) {
      setTried(null);
      setRefused((error as Error).message);
    }
  };
  const make = async () => {
    if (!tried) return;
    try {
      await send<ClassChangeDone>("POST", `${at}/classes/changes`, tried.change);
      setTried(null);
      setChosen([]);
      setName("");
      await load();
      onChange();
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  const to = name.trim();
  const toggle = (one: string) => {
    setTried(null);
    setChosen(chosen.includes(one) ? chosen.filter((each) => each !== one) : [...chosen, one]);
  };
  if (!uses) return refused ? <p class="bad">{refused}</p> : <div aria-busy="true" />;
  return (
    <div class="stack class-changes">
      <ul class="class-list">
        {uses.map((use) => (
          <li key={use.name} class={chosen.includes(use.name) ? "chosen" : ""}>
            <label>
              <input type="checkbox" checked={chosen.includes(use.name)} onChange={() => toggle(use.name)} />
              <span dir="auto">{use.name}</span>
            </label>
            <span class="quiet">
              {use.labels ? <a href={href(project, "gallery", { class: use.name, state: "done" })}>{plural(use.labels, "label")}</a> : "no labels"}
              {use.test_items > 0 && `, ${plural(use.test_items, "test item")}`}
              {use.gold_items > 0 && `, ${count(use.gold_items)} gold`}
              {use.aliases.length > 0 && `; was ${use.aliases.join(", ")}`}
            </span>
          </li>
        ))}
      </ul>
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          void ask(chosen.length === 0 ? { kind: "add", classes: [to] } : { kind: chosen.length === 1 ? "rename" : "merge", classes: chosen, to });
        }}
      >
        <input
          aria-label={chosen.length === 0 ? "Name of a new class" : "New name"}
          placeholder={chosen.length === 0 ? "Name of a new class, or choose some above" : chosen.length === 1 ? `New name of “${chosen[0]}”` : "Name of what they become"}
          list="class-names"
          value={name}
          maxLength={200}
          onInput={(event) => (setTried(null), setName(event.currentTarget.value))}
        />
        <datalist id="class-names">
          {chosen.length > 1 && chosen.map((one) => <option key={one} value={one} />)}
        </datalist>
        {chosen.length === 0 && <button disabled={!to}>Add</button>}
        {chosen.length === 1 && <button disabled={!to}>Rename</button>}
        {chosen.length > 1 && <button disabled={!to}>Merge {chosen.length}</button>}
        {chosen.length === 1 && to !== "" && uses.some((use) => use.name === to && use.name !== chosen[0]) && (
          <button type="button" onClick={() => void ask({ kind: "merge", classes: chosen, to })}>
            Merge into “{to}”
          </button>
        )}
        {chosen.length > 0 && (
          <button type="button" onClick={() => void ask({ kind: "remove", classes: chosen })}>
            Remove
          </button>
        )}
      </form>
      {tried && (
        <div class="notice" role="status" data-testid="effects">
          {tried.says.map((sentence) => (
            <p key={sentence} dir="auto">
              {sentence}
            </p>
          ))}
          <p class="row">
            <button class="primary" onClick={() => void make()}>
              Do it
            </button>
            <button onClick={() => setTried(null)}>Leave it</button>
          </p>
        </div>
      )}
      {refused && (
        <p class="bad" role="alert">
          {refused}
        </p>
      )}
      {past.length > 0 && (
        <ul class="past quiet">
          {past.map((one) => (
            <li key={one.id} dir="auto">
              {said(one)} {one.by ? `by ${one.by}` : "by command"}, {ago(one.created_at)}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

const DONE = { rename: "renamed", merge: "merged", add: "added", remove: "removed" };

const NAMED = 5; // of many classes, so many are named

function said(change: ClassChange): string {
  const more = change.classes.length - NAMED;
  const names = change.classes.slice(0, NAMED).map((name) => `“${name}”`).join(", ") + (more > 0 ? ` and ${plural(more, "other")}` : "");
  return `${names} ${DONE[change.kind]}${change.to ? ` to “${change.to}”` : ""}`;
}
