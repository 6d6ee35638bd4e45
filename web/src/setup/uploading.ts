// Files on their way from this browser to the service: collected, sent a few at a time, imported, watched.

import { get, Refused, send, Unreached, type Job } from "../api";
import { size } from "../format";
import { namesIn } from "./zipped";

export interface Chosen {
  path: string; // with its folders
  file: File;
}

/** What a file, or a member of an archive, becomes: its key as an item, and the folder that may be its class. */
export interface Entry {
  key: string;
  folder: string | null;
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
  const shown = found.filter(({ path }) => isShown(path));
  const tops = new Set(shown.map(({ path }) => path.split("/", 1)[0]));
  const deep = shown.every(({ path }) => path.includes("/")) && shown.some(({ path }) => path.split("/").length > 2);
  return tops.size === 1 && deep ? shown.map(({ path, file }) => ({ path: path.slice(path.indexOf("/") + 1), file })) : shown;
}

const isShown = (path: string): boolean => !path.split("/").some((name) => name.startsWith(".") || name === "__MACOSX" || name === "Thumbs.db");

const folderOf = (path: string): string | null => (path.includes("/") ? (path.split("/", 1)[0] as string) : null);

/** As the import reads them: of a zip its members, below the one folder that holds all of them, if there is one. */
export async function entriesOf(files: Chosen[]): Promise<Entry[]> {
  const found: Entry[] = [];
  for (const { path, file } of files) {
    if (!/\.zip$/i.test(path)) found.push({ key: path, folder: folderOf(path) });
    else found.push(...membersOf((await namesIn(file).catch(() => null)) ?? []));
  }
  return found;
}

function membersOf(names: string[]): Entry[] {
  const keys = names.filter((name) => !name.startsWith("/") && !name.split(/[/\\]/).includes("..")).map((name) => (name.includes("/") ? name : name.replaceAll("\\", "/")));
  const shown = keys.map((key) => key.split("/").filter((part) => part && part !== ".").join("/")).filter(isShown);
  const packed = new Set(shown.map((key) => key.split("/", 1)[0])).size === 1 && shown.some((key) => key.split("/").length > 2);
  return shown.map((key) => ({ key, folder: folderOf(packed ? key.slice(key.indexOf("/") + 1) : key) }));
}

/** The folders, where most entries are in one: they may be classes. */
export function foldersOf(entries: Entry[]): string[] {
  const found = entries.flatMap(({ folder }) => (folder === null ? [] : [folder]));
  return 2 * found.length > entries.length ? [...new Set(found)].sort() : [];
}

export const bytesOf = (files: Chosen[]) => files.reduce((sum, { file }) => sum + file.size, 0);

/** Send the files and queue their import. `told` hears how far it is; where it fails nothing is left behind. */
export async function upload(project: string, files: Chosen[], split: "pool" | "test", told: (sent: Sent) => void): Promise<Job[]> {
  const { id, room } = await send<{ id: string; room: number | null }>("POST", `/projects/${project}/uploads`);
  const all = bytesOf(files);
  if (room !== null && all > room) throw new Error(`There is room for ${size(room)} on the disk of the service, and these are ${size(all)}: nothing was sent. Send fewer, or make room.`);
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
export async function labelByFolder(project: string, entries: Entry[]): Promise<void> {
  const inFolders = entries.filter(({ folder }) => folder !== null);
  const lines = inFolders.map(({ key, folder }) => `${JSON.stringify({ key: key.normalize("NFC"), class: folder, annotator: "folders" })}\n`);
  const answer = await fetch(`/projects/${project}/labels/import`, { method: "POST", headers: { "X-Shortlist": "page", "Content-Type": "application/x-ndjson" }, body: new Blob(lines) });
  if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? "The labels of the folders were not taken.");
}
