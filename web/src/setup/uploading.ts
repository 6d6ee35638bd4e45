// Files on their way from this browser to the service: collected, sent a few at a time, imported, watched.

import { get, Refused, send, Unreached, type Job } from "../api";

export interface Chosen {
  path: string; // with its folders
  file: File;
}

export interface Sent {
  files: number;
  bytes: number;
}

const AT_ONCE = 4;
const TRIES = 3; // of a file, where the service is not reached
const LOOK_MS = 500;

/** What was dropped: folders with all that is in them. */
export async function dropped(transfer: DataTransfer): Promise<Chosen[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null); // before anything is waited for
  const found: Chosen[] = [];
  for (const entry of entries) await walk(entry, "", found);
  return tidied(found);
}

async function walk(entry: FileSystemEntry, above: string, into: Chosen[]): Promise<void> {
  const path = above + entry.name;
  if (entry.isFile) {
    into.push({ path, file: await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)) });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at most
    if (some.length === 0) return;
    for (const one of some) await walk(one, `${path}/`, into);
  }
}

/** What was chosen in a dialog. */
export function picked(files: FileList): Chosen[] {
  return tidied([...files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
}

/** Without what other programs hide, and without the one folder that holds all the others. */
function tidied(found: Chosen[]): Chosen[] {
  const shown = found.filter(({ path }) => !path.split("/").some((name) => name.startsWith(".") || name === "__MACOSX" || name === "Thumbs.db"));
  const tops = new Set(shown.map(({ path }) => path.split("/", 1)[0]));
  const deep = shown.every(({ path }) => path.includes("/")) && shown.some(({ path }) => path.split("/").length > 2);
  return tops.size === 1 && deep ? shown.map(({ path, file }) => ({ path: path.slice(path.indexOf("/") + 1), file })) : shown;
}

export const folderOf = (path: string): string | null => (path.includes("/") ? (path.split("/", 1)[0] as string) : null);

/** The first folders of the files, where all of them are in one: they may be classes. */
export function foldersOf(files: Chosen[]): string[] {
  const found = files.map(({ path }) => folderOf(path));
  return found.includes(null) ? [] : [...new Set(found as string[])].sort();
}

/** Send the files and queue their import. `told` hears how far it is; where it fails nothing is left behind. */
export async function upload(project: string, files: Chosen[], split: "pool" | "test", told: (sent: Sent) => void): Promise<Job[]> {
  const { id } = await send<{ id: string }>("POST", `/projects/${project}/uploads`);
  const place = `/projects/${project}/uploads/${id}`;
  const left = [...files];
  const under = new Map<string, number>(); // bytes by path
  let done = 0;
  const tell = () => told({ files: done, bytes: [...under.values()].reduce((sum, bytes) => sum + bytes, 0) });
  const work = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const { path, file } = next;
      await put(`${place}?${new URLSearchParams({ path })}`, file, (bytes) => (under.set(path, bytes), tell()));
      under.set(path, file.size);
      done += 1;
      tell();
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return (await send<{ jobs: Job[] }>("POST", `${place}/import`, { split })).jobs;
  } catch (error) {
    left.length = 0;
    await send("DELETE", place).catch(() => {});
    throw error;
  }
}

async function put(address: string, file: File, told: (bytes: number) => void): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await putOnce(address, file, told);
    } catch (error) {
      if (!(error instanceof Unreached) || tries === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * tries));
    }
  }
}

/** By XMLHttpRequest, which tells how far it is. The browser reads the file from the disk as it is sent. */
function putOnce(address: string, file: File, told: (bytes: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", address);
    request.setRequestHeader("X-Shortlist", "page");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => told(event.loaded);
    request.onerror = () => reject(new Unreached());
    request.onload = () => {
      if (request.status < 300) return resolve();
      try {
        const problem = JSON.parse(request.responseText);
        reject(new Refused(request.status, problem.code, problem.detail, problem.errors ?? []));
      } catch {
        reject(new Unreached());
      }
    };
    request.send(file);
  });
}

/** The jobs once all of them have ended; `told` hears of each look at them. */
export async function ended(jobs: Job[], told: (jobs: Job[]) => void): Promise<Job[]> {
  for (;;) {
    const now = await Promise.all(jobs.map((job) => get<Job>(`/jobs/${job.id}`).catch((error) => (error instanceof Unreached ? job : Promise.reject(error)))));
    told(now);
    if (now.every((job) => !["queued", "running"].includes(job.state))) return now;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** Labels that the folders imply, as imported ones. */
export async function labelByFolder(project: string, files: Chosen[]): Promise<void> {
  const lines = files.map(({ path }) => JSON.stringify({ key: path.normalize("NFC"), class: folderOf(path), annotator: "folders" }));
  const answer = await fetch(`/projects/${project}/labels/import`, { method: "POST", headers: { "X-Shortlist": "page", "Content-Type": "application/x-ndjson" }, body: `${lines.join("\n")}\n` });
  if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? "The labels of the folders were not taken.");
}
