// Where the page is, in the address: #/projects/p_1/gallery?state=done

import { signal } from "@preact/signals";

export interface Route {
  project: string | null;
  view: "projects" | "dashboard" | "gallery" | "map" | "desk" | "setup";
  query: URLSearchParams;
}

const VIEWS = ["dashboard", "gallery", "map", "desk", "setup"] as const;

function read(): Route {
  const [path = "", query = ""] = location.hash.slice(1).split("?", 2);
  const [, first, project, view] = path.split("/");
  if (first === "projects" && project) {
    return { project: decoded(project), view: VIEWS.find((known) => known === view) ?? "dashboard", query: new URLSearchParams(query) };
  }
  const before = new URLSearchParams(location.hash.slice(1)).get("project"); // addresses of the first page
  if (before) return { project: before, view: "dashboard", query: new URLSearchParams() };
  return { project: null, view: "projects", query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // no address of this page's
  }
}

export const route = signal<Route>(read());
addEventListener("hashchange", () => (route.value = read()));

/** Where a new project is made. */
export const NEW_PROJECT = "#/?new";

export function href(project: string | null, view?: Route["view"], query?: URLSearchParams | Record<string, string>): string {
  if (!project) return "#/";
  const asked = new URLSearchParams(query).toString();
  return `#/projects/${encodeURIComponent(project)}${view && view !== "dashboard" ? `/${view}` : ""}${asked ? `?${asked}` : ""}`;
}

/** Filters change the address without a new entry in the history. */
export function replaceQuery(query: URLSearchParams): void {
  const { project, view } = route.value;
  history.replaceState(null, "", href(project, view, query));
  route.value = { project, view, query };
}

/** The key of a link like /#key=sl_…, once: it goes out of the address at the same moment. */
export function takeKey(): string | null {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const key = fragment.get("key");
  if (key === null) return null;
  fragment.delete("key");
  history.replaceState(null, "", fragment.size ? `#${fragment}` : location.pathname);
  route.value = read();
  return key.trim();
}
