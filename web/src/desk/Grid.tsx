// Items that the head takes for one class, looked at together: the wrong ones are marked, the rest is confirmed at once.
// Where an item may have several classes, those that it takes to have exactly the same ones, as a label says them all.
// Control items are never among them. They come with no guess, and are asked one by one: accuracy is measured on them.

import { useRef } from "preact/hooks";

import { classOf } from "../classes";
import { viewerOf } from "../viewers";
import type { OnDesk } from "./queue";

export interface OfOneClass {
  name: string; // of the class, or of all of them
  label: { class: string } | { classes: string[] };
  items: OnDesk[];
}

const LEAST = 2; // one alone is asked as any other

/** Of a batch, the items of the class that most are taken for; null where there are too few. */
export function gridOf(batch: OnDesk[]): OfOneClass | null {
  const alike = new Map<string, OnDesk[]>();
  for (const each of batch) {
    const name = each.item.arm === "selected" && each.item.prediction ? classOf(each.item.prediction) : null;
    if (name !== null) alike.set(name, [...(alike.get(name) ?? []), each]);
  }
  const [most] = [...alike].sort((a, b) => b[1].length - a[1].length);
  if (!most || most[1].length < LEAST) return null;
  const [name, items] = most;
  const classes = items[0]!.item.prediction!.classes;
  return { name, label: classes ? { classes } : { class: name }, items };
}

export function Grid({ grid, wrong, toggle }: { grid: OfOneClass; wrong: ReadonlySet<string>; toggle: (id: string) => void }) {
  const holder = useRef<HTMLUListElement>(null);
  /** Arrows move as the eye does, whatever the number of columns. */
  const move = (event: KeyboardEvent) => {
    const buttons = [...(holder.current?.querySelectorAll("button") ?? [])];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    const first = buttons[0]?.getBoundingClientRect().top;
    const columns = buttons.filter((button) => button.getBoundingClientRect().top === first).length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    buttons[at < 0 ? 0 : Math.max(0, Math.min(buttons.length - 1, at + by))]?.focus();
  };
  return (
    <div class="desk-grid">
      <h2>
        Which of these are not {"classes" in grid.label && grid.label.classes.length > 0 && "just "}
        <b dir="auto">{grid.name}</b>?
      </h2>
      <p class="quiet">Tap the wrong ones<span class="hide-small"> (or arrows and Space); Enter confirms the rest</span>. Items drawn at random are left out, and follow one by one.</p>
      <ul ref={holder} onKeyDown={move} data-testid="desk-grid">
        {grid.items.map(({ item }) => {
          const { Tile } = viewerOf(item.content);
          const marked = wrong.has(item.id);
          return (
            <li key={item.id}>
              <button aria-pressed={marked} data-item={item.id} aria-label={`${item.key}: ${marked ? "not " : ""}${grid.name}`} title={item.key} onClick={() => toggle(item.id)}>
                <Tile content={item.content} name={item.key} />
              </button>
            </li>
          );
        })}
      </ul>
    </div>
  );
}
