// A new project: its name, its classes, and its items: dropped here, or where the service may read them.

import { useRef, useState } from "preact/hooks";

import { get, send, type Job, type Metrics, type Project } from "./api";
import { href } from "./route";
import { DropZone, Importing, Sending } from "./setup/Upload";
import { ended, entriesOf, foldersOf, labelByFolder, upload, type Chosen, type Entry, type Sent } from "./setup/uploading";

type Folders = "names" | "labels" | "test";

const RANKED_MS = 60_000; // at most so long is the first ranking waited for, before the pretraining
const LOOK_MS = 500;

/** One a line; or by commas, where quotes keep one inside a name: cat, "dog, small". */
export function classesIn(text: string): string[] {
  const names = text.split("\n").flatMap((line) => line.match(/\s*"(?:[^"]|"")*"\s*|[^,]+/g) ?? []);
  const clean = names.map((name) => name.trim().replace(/^"(.*)"$/, (_, inside: string) => inside.replaceAll('""', '"')).trim());
  return [...new Set(clean.filter(Boolean))];
}

const written = (names: string[]) => names.map((name) => (/[,"]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name)).join(", ");

export function NewProject({ open, setOpen }: { open: boolean; setOpen: (open: boolean) => void }) {
  const [name, setName] = useState("");
  const [kind, setKind] = useState("");
  const [classes, setClasses] = useState("");
  const [several, setSeveral] = useState(false);
  const [uri, setUri] = useState("");
  const [files, setFiles] = useState<Chosen[]>([]);
  const [entries, setEntries] = useState<Entry[]>([]); // what the files become
  const newest = useRef<Chosen[]>([]);
  const [folders, setFolders] = useState<Folders>("names");
  const [refused, setRefused] = useState<string | null>(null);
  const [made, setMade] = useState<Project | null>(null);
  const [busy, setBusy] = useState(false);
  const [sent, setSent] = useState<Sent | null>(null);
  const [jobs, setJobs] = useState<Job[]>([]);
  const [then, setThen] = useState<string | null>(null); // what goes on once items are there
  if (!open) return <button onClick={() => setOpen(true)}>New project</button>;
  const inFolders = foldersOf(entries);
  const choose = async (found: Chosen[]) => {
    newest.current = found;
    setFiles(found);
    setEntries([]);
    const inside = await entriesOf(found);
    if (newest.current !== found) return;
    setEntries(inside);
    const names = foldersOf(inside);
    if (names.length > 1) setClasses((before) => (before.trim() ? before : written(names)));
  };
  const make = async () => {
    setBusy(true);
    setRefused(null);
    try {
      // Made once: where its source is refused, the next try goes on with it.
      const project = made ?? (await send<Project>("POST", "/projects", { name, classes: classesIn(classes), ...(kind ? { modality: kind } : {}), ...(several ? { label_kind: "multi" } : {}) }));
      setMade(project);
      if (files.length) await fill(project);
      else {
        if (uri.trim()) await send<Job>("POST", `/projects/${project.id}/sources`, { uri: uri.trim(), split: "pool" });
        location.hash = href(project.id);
      }
    } catch (error) {
      setSent(null);
      setRefused((error as Error).message);
    } finally {
      setBusy(false);
    }
  };
  const fill = async (project: Project) => {
    setSent({ files: 0, bytes: 0 });
    const queued = await upload(project.id, files, folders === "test" && !several ? "test" : "pool", setSent);
    setSent(null);
    const done = await ended(queued, setJobs);
    const failed = done.find((job) => job.state !== "succeeded");
    if (failed) throw new Error(failed.error ?? "The import was cancelled.");
    if (folders === "test" && !several) return setThen("The test split is there. Now add the items to label, under Settings.");
    if (folders === "labels" && !several) await labelByFolder(project.id, entries);
    setThen("Ranking the items for the first time …");
    await ranked(project);
    await send<Job>("POST", `/projects/${project.id}/pretrain`, {});
    setThen("Pretraining is queued: batches get better as it goes on. Label meanwhile.");
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
      {!sent && jobs.length === 0 && (
        <>
          <span class="label">Items</span>
          <DropZone files={files} onFiles={(found) => void choose(found)} />
          {files.length === 0 && (
            <>
              <input id="uri" aria-label="Or a folder, table, archive or bucket that the service may read" placeholder="or where the service may read them: /data/photographs" value={uri} onInput={(event) => setUri(event.currentTarget.value)} />
              <p class="quiet">A folder, an archive, a table or a bucket. It can be given later, too.</p>
            </>
          )}
        </>
      )}
      <label for="classes">Classes</label>
      <textarea id="classes" rows={3} placeholder={'cat, dog, "other, or none"'} value={classes} onInput={(event) => setClasses(event.currentTarget.value)} disabled={made !== null} required />
      <p class="quiet">Separated by commas, or one a line; at least two. They can be added to, renamed and merged later.</p>
      {!made && (
        <label class="check">
          <input type="checkbox" checked={several} onChange={(event) => setSeveral(event.currentTarget.checked)} /> An item can have several of them, or none
        </label>
      )}
      {inFolders.length > 1 && !made && !several && (
        <>
          <label for="folders">The {inFolders.length} folders</label>
          <select id="folders" value={folders} onChange={(event) => setFolders(event.currentTarget.value as Folders)}>
            <option value="names">are only names: everything is to be labeled</option>
            <option value="labels">are classes: what lies in them is labeled so</option>
            <option value="test">are classes, of a test split that heads are measured on</option>
          </select>
        </>
      )}
      {!made && (
        <>
          <label for="kind">Kind</label>
          <select id="kind" value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
            <option value="">told by the items</option>
            <option value="image">images</option>
            <option value="text">texts</option>
          </select>
        </>
      )}
      {sent && <Sending files={files} sent={sent} />}
      <Importing jobs={jobs} />
      {then && <p role="status">{then}</p>}
      {refused && (
        <p class="bad" role="alert">
          {refused}
        </p>
      )}
      <div class="row">
        {made && then ? (
          <a class="button primary" href={href(made.id, "desk")}>
            Label
          </a>
        ) : (
          <button class="primary" disabled={busy}>
            {made ? "Import" : "Make it"}
          </button>
        )}
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

/** Once the first ranking, by what costs no training, is there, or its job is: pretraining would keep pretrained weights waiting. */
async function ranked(project: Project): Promise<void> {
  const until = Date.now() + RANKED_MS;
  while (Date.now() < until) {
    const metrics = await get<Metrics>(`/projects/${project.id}/metrics`);
    if (metrics.ranking || !metrics.jobs.some((job) => job.kind === "score_raw" || job.kind === "rank")) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
