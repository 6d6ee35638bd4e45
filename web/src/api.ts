// The one way to the API: typed by its description, with ETags for what is asked again and again.

import type { components } from "./schema";

type Schemas = components["schemas"];
export type Project = Schemas["ProjectAnswer"];
export type Metrics = Schemas["MetricsAnswer"];
export type Round = Schemas["RoundAnswer"];
export type ClassConfusion = Schemas["ClassConfusion"];
export type Job = Schemas["JobAnswer"];
export type AnnotatorReport = Schemas["AnnotatorAnswer"];
export type Share = Schemas["ShareAnswer"];
export type PretextModel = Schemas["PretextModelAnswer"];
export type Scores = Schemas["ScoresAnswer"];
export type Gate = Schemas["GateAnswer"];
export type Item = Schemas["ItemAnswer"];
export type ItemWithLabels = Schemas["ItemWithLabels"];
export type Content = Schemas["ItemContent"];
export type BatchItem = Schemas["BatchItem"];
export type Batch = Schemas["BatchAnswer"];
export type LabelIn = Schemas["LabelIn"];
export type LabelsAnswer = Schemas["LabelsAnswer"];
export type SignedIn = Schemas["SignedIn"];
export type Suspect = Schemas["SuspectAnswer"];
export type AnsweredItem = Schemas["AnsweredItem"];
export type Similar = Schemas["SimilarAnswer"];
export type Neighbour = Schemas["Neighbour"];
export type ClassUse = Schemas["ClassAnswer"];
export type ClassChange = Schemas["PastClassChange"];
export type ClassChangeDone = Schemas["ClassChangeAnswer"];
export type Webhook = Schemas["WebhookAnswer"];
export type Delivery = Schemas["DeliveryAnswer"];
export type Page<T> = { items: T[]; next_cursor: string | null };

/** What the service refused, in its own words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly fields: { field: string; message: string }[],
  ) {
    super(detail);
  }
}

/** The service was not reached, or a proxy in front of it answered. */
export class Unreached extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

type Query = Record<string, string | number | boolean | null | undefined>;

export function withQuery(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value != null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : path;
}

const answers = new Map<string, { etag: string; body: unknown }>();
const KEPT = 60;

let onSignedOut = () => {};
export function whenSignedOut(act: () => void): void {
  onSignedOut = act;
}

export function forgetAnswers(): void {
  answers.clear();
}

export async function ask(method: string, path: string, body?: unknown, more: Record<string, string> = {}): Promise<Response> {
  const headers: Record<string, string> = { "X-Shortlist": "page", ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Unreached();
  }
  if (response.ok || response.status === 304) return response;
  const problem = await response.json().catch(() => null);
  if (problem?.code === undefined) throw new Unreached(); // not our answer
  if (response.status === 401) onSignedOut();
  throw new Refused(response.status, problem.code, problem.detail, problem.errors ?? []);
}

export async function get<T>(path: string, query: Query = {}): Promise<T> {
  const address = withQuery(path, query);
  const known = answers.get(address);
  const response = await ask("GET", address, undefined, known ? { "If-None-Match": known.etag } : {});
  if (response.status === 304 && known) return known.body as T;
  const body = await response.json();
  const etag = response.headers.get("ETag");
  answers.delete(address);
  if (etag) answers.set(address, { etag, body });
  if (answers.size > KEPT) answers.delete(answers.keys().next().value as string);
  return body as T;
}

export async function send<T>(method: "POST" | "PATCH" | "DELETE", path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
  const response = await ask(method, path, body, headers);
  return (response.status === 204 ? null : await response.json()) as T;
}
