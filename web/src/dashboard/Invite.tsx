// A link that signs an annotator in: to one project, under one name.

import { useState } from "preact/hooks";

import { send } from "../api";

export function Invite({ project }: { project: string }) {
  const [name, setName] = useState("");
  const [made, setMade] = useState<{ name: string; link: string } | null>(null);
  const [refused, setRefused] = useState<string | null>(null);
  const make = async () => {
    try {
      const annotator = name.trim();
      const { key } = await send<{ key: string }>("POST", "/keys", { name: `link for ${annotator}`.slice(0, 200), role: "annotator", project, annotator });
      const fragment = new URLSearchParams({ key, project });
      setMade({ name: annotator, link: `${location.origin}/#${fragment}` });
      setName("");
      setRefused(null);
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  return (
    <div class="more invite">
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          void make();
        }}
      >
        <input aria-label="Name of an annotator" placeholder="Name of an annotator" value={name} onInput={(event) => setName(event.currentTarget.value)} maxLength={190} required />
        <button>Make a link for them</button>
      </form>
      {refused && <p class="bad">{refused}</p>}
      {made && (
        <p>
          Whoever opens this link labels as <b dir="auto">{made.name}</b>. It is shown this once:
          <input class="mono" aria-label={`Link for ${made.name}`} readOnly value={made.link} onFocus={(event) => event.currentTarget.select()} />
        </p>
      )}
    </div>
  );
}
