// Items that the head takes for one class, looked at together: the wrong ones are marked, the rest is confirmed at once.
// Control items are never among them. They come with no guess, and are asked one by one: accuracy is measured on them.

import { useRef } from "preact/hooks";

import { viewerOf } from "../viewers";
import type { OnDesk } from "./queue";

export interface OfOneClass {
  class: string;
  items: OnDesk[];
}

const LEAST = 2; // one alone is asked as any other

/** Of a batch, the items of the class that most are taken for; null where there are too few. */
export function gridOf(batch: OnDesk[]): OfOneClass | null {
  const guessed = batch.filter((each) => each.item.arm === "selected" && each.item.prediction?.class != null);
  const counts = new Map<string, number>();
  for (const { item } of guessed) {
    const name = item.prediction!.class!;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const [most] = [...counts].sort((a, b) => b[1] - a[1]);
  if (!most || most[1] < LEAST) return null;
  return { class: most[0], items: guessed.filter((each) => each.item.prediction!.class === most[0]) };
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
        Which of these are not <b dir="auto">{grid.class}</b>?
      </h2>
      <p class="quiet">Tap the wrong ones<span class="hide-small"> (or arrows and Space); Enter confirms the rest</span>. Items drawn at random are left out, and follow one by one.</p>
      <ul ref={holder} onKeyDown={move} data-testid="desk-grid">
        {grid.items.map(({ item }) => {
          const { Tile } = viewerOf(item.content);
          const marked = wrong.has(item.id);
          return (
            <li key={item.id}>
              <button aria-pressed={marked} data-item={item.id} aria-label={`${item.key}: ${marked ? "not " : ""}${grid.class}`} title={item.key} onClick={() => toggle(item.id)}>
                <Tile content={item.content} name={item.key} />
              </button>
            </li>
          );
        })}
      </ul>
    </div>
  );
}
