// Labels on their way: kept in the browser until the service has them, sent in their order, nothing twice.
//
// Each lies under a key of its own in localStorage, so that tabs do not overwrite each other. What goes out together is
// marked with its Idempotency-Key before it is sent: sent again after a lost answer, it is the same request.

import { signal } from "@preact/signals";

import { Refused, send, Unreached, type LabelIn, type LabelsAnswer } from "../api";
import { session } from "../session";

export interface Entry {
  id: string; // sorts by time
  project: string;
  label: LabelIn & { item: string; annotator: string };
  request?: string; // the Idempotency-Key it was sent with, if it was
  tab: string;
  refusedTo?: string; // the key that may not send it; it waits for another to sign in
}

export interface Told {
  item: string;
  text: string;
}

const PREFIX = "shortlist.label.";
const MOST = 200; // labels a request
const LONGEST_WAIT_MS = 15_000;
const ORPHAN_MS = 60_000;
const TAB = random();

export const waiting = signal(0); // labels that the service does not have yet
export const offline = signal(false);
export const told = signal<Told[]>([]); // conflicts, newest last
export const answered = signal<{ project: string; labelsUsed: number; round: number } | null>(null);

let last = 0;
function nextId(): string {
  last = Math.max(last + 1, Date.now());
  return `${last.toString().padStart(15, "0")}.${random()}`;
}

/** `crypto.randomUUID` is there only behind TLS and on this machine. */
function random(): string {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("");
}

function entries(): Entry[] {
  const found: Entry[] = [];
  for (let index = 0; index < localStorage.length; index++) {
    const key = localStorage.key(index) as string;
    if (key.startsWith(PREFIX)) found.push(JSON.parse(localStorage.getItem(key) as string) as Entry);
  }
  return found.sort((a, b) => (a.id < b.id ? -1 : 1));
}

const sendable = () => entries().filter((entry) => entry.refusedTo !== session.value?.key);

const keep = (entry: Entry) => localStorage.setItem(PREFIX + entry.id, JSON.stringify(entry));
const drop = (entry: Entry) => localStorage.removeItem(PREFIX + entry.id);

export function pendingItems(project: string): Set<string> {
  return new Set(entries().flatMap((entry) => (entry.project === project ? [entry.label.item] : [])));
}

export function put(project: string, label: Entry["label"]): void {
  keep({ id: nextId(), project, label, tab: TAB });
  waiting.value = sendable().length;
  void flush();
}

/** Takes back the newest label of an item: unsent it is as if it had never been, else it is withdrawn. */
export function takeBack(project: string, item: string, annotator: string): void {
  const mine = entries().filter((entry) => entry.project === project && entry.label.item === item && entry.label.annotator === annotator);
  const newest = mine.at(-1);
  if (newest && newest.request === undefined) {
    drop(newest);
    waiting.value = sendable().length;
  } else put(project, { item, annotator, class: null });
}

export function dismiss(index: number): void {
  told.value = told.value.filter((_, each) => each !== index);
}

let sending = false;
let waitMs = 500;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Sends what there is. Tries again by itself while the service is not reached. */
export async function flush(): Promise<void> {
  clearTimeout(timer);
  if (sending || !session.value) return;
  sending = true;
  try {
    // One tab at a time. Browsers have locks behind TLS and on this machine; elsewhere a tab sends its own labels, and
    // those that a tab has left behind.
    if (navigator.locks) await navigator.locks.request("shortlist.outbox", () => sendAll(() => true));
    else await sendAll((entry) => entry.tab === TAB || Number(entry.id.split(".")[0]) < Date.now() - ORPHAN_MS);
    offline.value = false;
  } catch (error) {
    // Not reached, busy, or signed out: all is kept.
    offline.value = error instanceof Unreached;
    if (error instanceof Unreached || (error instanceof Refused && (error.status >= 500 || error.status === 429 || error.status === 409))) {
      timer = setTimeout(() => void flush(), waitMs);
      waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
    }
  } finally {
    sending = false;
    waiting.value = sendable().length;
  }
}

async function sendAll(mine: (entry: Entry) => boolean): Promise<void> {
  for (;;) {
    const all = sendable().filter(mine);
    waiting.value = all.length;
    const first = all[0];
    if (!first) return;
    await sendTogether(together(all, first));
    offline.value = false;
    waitMs = 500;
  }
}

function together(all: Entry[], first: Entry): Entry[] {
  if (first.request !== undefined) return all.filter((entry) => entry.request === first.request);
  const group: Entry[] = [];
  const items = new Set<string>();
  for (const entry of all) {
    // One label an item and request: withdrawn and labeled anew are two.
    if (entry.project !== first.project || entry.request !== undefined || items.has(entry.label.item) || group.length === MOST) break;
    items.add(entry.label.item);
    group.push(entry);
  }
  const request = `page-${random()}`;
  for (const entry of group) keep(Object.assign(entry, { request }));
  return group;
}

async function sendTogether(group: Entry[]): Promise<void> {
  const { project, request } = group[0] as Entry;
  const body = { labels: group.map((entry) => entry.label) };
  try {
    const answer = await send<LabelsAnswer>("POST", `/projects/${project}/labels`, body, { "Idempotency-Key": request as string });
    answered.value = { project, labelsUsed: answer.labels_used, round: answer.round };
    for (const result of answer.results) {
      if (result.outcome === "stale") tell(result.item, "a newer label of yours counts, sent from elsewhere");
    }
    group.forEach(drop);
  } catch (error) {
    if (!(error instanceof Refused) || ![403, 404, 409, 413, 422].includes(error.status) || error.code === "idempotency_key_in_use") throw error;
    if (error.status === 403) {
      const key = session.value?.key as string;
      for (const entry of group) keep({ id: entry.id, project, label: entry.label, tab: entry.tab, refusedTo: key });
      tell((group[0] as Entry).label.item, `${error.message} It is kept here until somebody signs in who may send it.`);
      return;
    }
    // All or nothing: the one that is refused is told and taken out, the others go again as a new request.
    const index = Number(error.fields[0]?.field.match(/^labels\[(\d+)\]/)?.[1] ?? NaN);
    const refused = group[index] ? [group[index]] : group;
    for (const entry of group) {
      if (refused.includes(entry)) {
        tell(entry.label.item, error.message);
        drop(entry);
      } else keep({ id: entry.id, project, label: entry.label, tab: entry.tab });
    }
  }
}

export function tell(item: string, text: string): void {
  told.value = [...told.value, { item, text }];
}

addEventListener("online", () => void flush());
