// The items on the desk: asked for ahead, kept fresh, each with its picture already there.

import { send, type Batch, type BatchItem } from "../api";
import { viewerOf } from "../viewers";
import { pendingItems } from "./outbox";

export const BATCH = 12;
export const GRID = 30;
const LOW = 20; // so many left: the next ones are asked for. Without a connection there is as much to label
const RENEW_MS = 5 * 60_000; // a reservation that ends sooner is renewed, while somebody labels
const IDLE_MS = 10 * 60_000;
const RETRY_MS = 10_000; // where there was nothing more

export interface OnDesk {
  item: BatchItem;
  batch: string;
  source: string | undefined; // the preloaded picture
}

/** What is asked for: items one by one, or a grid of one predicted class, or of one set; null leaves that to the service. */
export type Mode = { grid: string | string[] | null } | null;

export class Queue {
  items: OnDesk[] = [];
  reason: Batch["reason"] = null;
  error: Error | null = null;
  loading = true;
  retryAt = 0;
  private asking = false;
  private whole = false; // what a reload left over is all here
  private over = false;
  private lastUse = Date.now();
  private ends = new Map<string, number>(); // by batch
  private readonly timer: ReturnType<typeof setInterval>;

  constructor(
    private readonly project: string,
    private readonly annotator: string,
    private readonly mode: Mode,
    private readonly changed: () => void,
  ) {
    this.timer = setInterval(() => void this.tick(), 5000);
    void this.fill();
  }

  close(): void {
    this.over = true;
    clearInterval(this.timer);
    this.items.forEach(forget);
  }

  take(): OnDesk | undefined {
    this.lastUse = Date.now();
    const taken = this.items.shift();
    if (this.items.length <= this.low && Date.now() >= this.retryAt) void this.fill();
    return taken;
  }

  /** Out of the middle, as of a grid. */
  remove(taken: readonly OnDesk[]): void {
    this.lastUse = Date.now();
    this.items = this.items.filter((each) => !taken.includes(each));
    if (this.items.length <= this.low && Date.now() >= this.retryAt) void this.fill();
  }

  putBack(...taken: OnDesk[]): void {
    this.lastUse = Date.now();
    this.items.unshift(...taken);
  }

  /** The next grid is asked for when nothing of the last is left: what it may hold is decided by then. */
  private get low(): number {
    return this.mode ? 0 : LOW;
  }

  /** Gives the rest back to the pool. */
  async giveBack(): Promise<void> {
    const batches = new Set(this.items.map((each) => each.batch));
    this.close();
    await Promise.all([...batches].map((batch) => send("DELETE", `/batches/${batch}`)));
  }

  async fill(): Promise<void> {
    if (this.asking || this.over) return;
    this.asking = true;
    let rest = false;
    try {
      // First what is still reserved, as after a reload; then new ones.
      const body = { annotator: this.annotator, size: this.mode ? GRID : BATCH, new: this.whole, ...(this.mode ? { grid: true, [Array.isArray(this.mode.grid) ? "predicted_classes" : "predicted_class"]: this.mode.grid } : {}) };
      const sent = Date.now();
      const answer = await send<Batch>("POST", `/projects/${this.project}/next-batch`, body);
      if (this.over) return;
      this.error = null;
      const here = new Set([...this.items.map((each) => each.item.id), ...pendingItems(this.project), ...this.decided]);
      const fresh = answer.items.filter((item) => !here.has(item.id));
      if (answer.batch && answer.expires_at) this.ends.set(answer.batch, Date.parse(answer.expires_at));
      const added = fresh.map((item): OnDesk => ({ item, batch: answer.batch as string, source: undefined }));
      this.items.push(...added);
      rest = !this.whole && this.items.length <= this.low;
      this.whole = true;
      this.reason = this.items.length ? null : answer.reason;
      this.retryAt = fresh.length || rest ? 0 : sent + RETRY_MS;
      for (const each of added) {
        viewerOf(each.item.content)
          .preload(each.item.content)
          .then((source) => {
            if (this.over) return URL.revokeObjectURL(source);
            each.source = source || undefined;
            if (this.items[0] === each) this.changed();
          })
          .catch(() => {}); // shown by its link, then
      }
    } catch (error) {
      this.error = error as Error;
      this.retryAt = Date.now() + 3000;
    } finally {
      this.asking = false;
      this.loading = false;
      if (!this.over) this.changed();
    }
    if (rest) await this.fill();
  }

  /** Items labeled since this desk was opened: never shown again but by undo. */
  readonly decided = new Set<string>();

  private async tick(): Promise<void> {
    if (this.items.length <= this.low && Date.now() >= this.retryAt) await this.fill();
    const now = Date.now();
    for (const batch of new Set(this.items.map((each) => each.batch))) {
      const left = (this.ends.get(batch) ?? Infinity) - now;
      if (left > RENEW_MS || now - this.lastUse > IDLE_MS) {
        if (left <= 0) this.leave(batch); // somebody else may have them
        continue;
      }
      try {
        const held = await send<{ expires_at: string }>("POST", `/batches/${batch}/renew`);
        this.ends.set(batch, Date.parse(held.expires_at));
      } catch {
        if (left <= 0) this.leave(batch);
      }
    }
  }

  private leave(batch: string): void {
    this.items.filter((each) => each.batch === batch).forEach(forget);
    this.items = this.items.filter((each) => each.batch !== batch);
    this.changed();
    void this.fill();
  }
}

export function forget(each: OnDesk): void {
  if (each.source) URL.revokeObjectURL(each.source);
}
