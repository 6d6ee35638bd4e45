// Files and folders, dropped or chosen, that become items.

import { useRef, useState } from "preact/hooks";

import type { Job } from "../api";
import { count, plural, size } from "../format";
import { Progress } from "../parts";
import { bytesOf, dropped, ended, picked, upload, type Chosen, type Sent } from "./uploading";

export function DropZone({ files, onFiles }: { files: Chosen[]; onFiles: (files: Chosen[]) => void }) {
  const [over, setOver] = useState(false);
  const [unread, setUnread] = useState<string | null>(null);
  const chooser = useRef<HTMLInputElement>(null);
  const folders = useRef<HTMLInputElement>(null);
  return (
    <div
      class={`drop ${over ? "over" : ""}`}
      data-testid="drop"
      onDragOver={(event) => (event.preventDefault(), setOver(true))}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        setUnread(null);
        if (event.dataTransfer) dropped(event.dataTransfer).then(onFiles, (error: Error) => setUnread(error.message));
      }}
    >
      {files.length ? (
        <p>
          <b>
            {plural(files.length, "file")}, {size(bytesOf(files))}
          </b>
          <span class="quiet mono">{files.slice(0, 3).map(({ path }) => path).join(", ")}{files.length > 3 ? " …" : ""}</span>
        </p>
      ) : (
        <p>
          <b>Drop files, folders or archives here</b>
          <span class="quiet">images, texts, CSV, JSONL, Parquet, zip, tar; of any size</span>
        </p>
      )}
      {unread && (
        <p class="bad" role="alert">
          What was dropped cannot be read: {unread}
        </p>
      )}
      <span class="row">
        <button type="button" onClick={() => chooser.current?.click()}>
          Choose files
        </button>
        <button type="button" onClick={() => folders.current?.click()}>
          Choose a folder
        </button>
        {files.length > 0 && (
          <button type="button" onClick={() => onFiles([])}>
            None of them
          </button>
        )}
      </span>
      <input ref={chooser} class="unseen" type="file" multiple aria-label="Files to upload" tabIndex={-1} onChange={(event) => onFiles(picked(event.currentTarget.files as FileList))} />
      <input ref={folders} class="unseen" type="file" aria-label="A folder to upload" tabIndex={-1} {...{ webkitdirectory: true }} onChange={(event) => onFiles(picked(event.currentTarget.files as FileList))} />
    </div>
  );
}

export function Sending({ files, sent }: { files: Chosen[]; sent: Sent }) {
  const all = bytesOf(files);
  return (
    <p class="doing" role="status">
      <Progress value={all ? sent.bytes / all : 1} label="Progress of the upload" />
      {count(sent.files)} of {plural(files.length, "file")} sent, {size(sent.bytes)} of {size(all)}
    </p>
  );
}

export function Importing({ jobs }: { jobs: Job[] }) {
  return (
    <>
      {jobs.map((job) => (
        <p key={job.id} class={`doing ${job.state === "failed" ? "bad" : ""}`} role="status">
          <Progress value={job.state === "succeeded" ? 1 : job.progress} label="Progress of the import" />
          {job.state === "succeeded" ? imported(job) : (job.error ?? job.message ?? (job.waits_for ? `waits for ${job.waits_for}` : "import is queued"))}
        </p>
      ))}
    </>
  );
}

function imported(job: Job): string {
  const result = (job.result ?? {}) as Record<string, number> & { refusals?: string[] };
  const names = ["added", "known", "changed", "moved", "quarantined", "refused", "ignored", "missing"];
  return `Imported: ${names.filter((name) => result[name]).map((name) => `${count(result[name] as number)} ${name}`).join(", ")}. ${result.refusals?.[0] ?? ""}`;
}

/** Upload and import into a project that is there. */
export function UploadCard({ project }: { project: string }) {
  const [files, setFiles] = useState<Chosen[]>([]);
  const [split, setSplit] = useState<"pool" | "test">("pool");
  const [sent, setSent] = useState<Sent | null>(null);
  const [jobs, setJobs] = useState<Job[]>([]);
  const [refused, setRefused] = useState<string | null>(null);
  const go = async () => {
    setRefused(null);
    setJobs([]);
    setSent({ files: 0, bytes: 0 });
    try {
      const queued = await upload(project, files, split, setSent);
      setSent(null);
      setFiles([]);
      await ended(queued, setJobs);
    } catch (error) {
      setSent(null);
      setRefused((error as Error).message);
    }
  };
  return (
    <div class="stack">
      {!sent && <DropZone files={files} onFiles={setFiles} />}
      {sent && <Sending files={files} sent={sent} />}
      {files.length > 0 && !sent && (
        <p class="row">
          <select aria-label="What they are" value={split} onChange={(event) => setSplit(event.currentTarget.value as "pool" | "test")}>
            <option value="pool">items to label</option>
            <option value="test">a test split: the first folder is the class</option>
          </select>
          <button class="primary" onClick={() => void go()}>
            Upload and import
          </button>
        </p>
      )}
      <Importing jobs={jobs} />
      {refused && (
        <p class="bad" role="alert">
          {refused}
        </p>
      )}
    </div>
  );
}
