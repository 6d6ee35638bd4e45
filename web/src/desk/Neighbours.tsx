// The labeled items most like the one on the desk, on request, to compare it with.

import { useEffect, useState } from "preact/hooks";

import { get, type Neighbour } from "../api";
import { classOf } from "../classes";
import { viewerOf } from "../viewers";
import type { OnDesk } from "./queue";

export function Neighbours({ on }: { on: OnDesk }) {
  const [found, setFound] = useState<Neighbour[] | null>(null);
  const [refused, setRefused] = useState<string | null>(null);
  useEffect(() => {
    let over = false;
    get<{ items: Neighbour[] }>(`/batches/${on.batch}/items/${on.item.id}/neighbours`).then(
      (answer) => over || setFound(answer.items),
      (error: Error) => over || setRefused(error.message),
    );
    return () => {
      over = true;
    };
  }, []);
  return (
    <div class="why neighbours" data-testid="neighbours">
      {refused && <p>{refused}</p>}
      {found?.length === 0 && <p>Nothing like it is labeled yet.</p>}
      {found && found.length > 0 && (
        <ul>
          {found.map((item) => {
            const { Tile } = viewerOf(item.content);
            return (
              <li key={item.id}>
                <Tile content={item.content} name={item.key} />
                <b dir="auto">{classOf(item)}</b>
              </li>
            );
          })}
        </ul>
      )}
    </div>
  );
}
