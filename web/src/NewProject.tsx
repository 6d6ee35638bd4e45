// A new project: its name, its classes, and where its items lie.

import { useState } from "preact/hooks";

import { send, type Job, type Project } from "./api";
import { href } from "./route";

export function NewProject() {
  const [open, setOpen] = useState(false);
  const [name, setName] = useState("");
  const [classes, setClasses] = useState("");
  const [uri, setUri] = useState("");
  const [refused, setRefused] = useState<string | null>(null);
  const [made, setMade] = useState<Project | null>(null);
  const [busy, setBusy] = useState(false);
  if (!open) return <button onClick={() => setOpen(true)}>New project</button>;
  const names = classes
    .split(/[\n,]/)
    .map((each) => each.trim())
    .filter(Boolean);
  const make = async () => {
    setBusy(true);
    setRefused(null);
    try {
      // Made once: where its source is refused, the next try goes on with it.
      const project = made ?? (await send<Project>("POST", "/projects", { name, classes: names }));
      setMade(project);
      if (uri.trim()) await send<Job>("POST", `/projects/${project.id}/sources`, { uri: uri.trim(), split: "pool" });
      location.hash = href(project.id);
    } catch (error) {
      setRefused((error as Error).message);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      class="card new-project"
      onSubmit={(event) => {
        event.preventDefault();
        void make();
      }}
    >
      <h2>New project</h2>
      <label for="name">Name</label>
      <input id="name" value={name} onInput={(event) => setName(event.currentTarget.value)} maxLength={200} disabled={made !== null} required autofocus />
      <label for="classes">Classes</label>
      <textarea id="classes" rows={3} placeholder="cat, dog" value={classes} onInput={(event) => setClasses(event.currentTarget.value)} disabled={made !== null} required />
      <p class="quiet">Separated by commas, or one a line; at least two. More can be added later.</p>
      <label for="uri">Items</label>
      <input id="uri" placeholder="/data/photographs" value={uri} onInput={(event) => setUri(event.currentTarget.value)} />
      <p class="quiet">A folder, a table or a bucket that the service may read. It can be given later, too.</p>
      {refused && (
        <p class="bad" role="alert">
          {refused}
        </p>
      )}
      <div class="row">
        <button class="primary" disabled={busy}>
          {made ? "Import" : "Make it"}
        </button>
        {made ? (
          <a class="button" href={href(made.id)}>
            Go to the project
          </a>
        ) : (
          <button type="button" onClick={() => setOpen(false)}>
            Cancel
          </button>
        )}
      </div>
    </form>
  );
}
