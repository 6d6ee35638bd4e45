import { render } from "preact";
import { useEffect, useErrorBoundary, useState } from "preact/hooks";

import { get, Unreached, type Metrics, type Page, type Project } from "./api";
import { figureOf } from "./classes";
import { Dashboard } from "./dashboard/Dashboard";
import { Desk } from "./desk/Desk";
import { flush } from "./desk/outbox";
import { count, percent, plural } from "./format";
import { Gallery } from "./gallery/Gallery";
import { MapView } from "./map/MapView";
import { NewProject } from "./NewProject";
import { Empty } from "./parts";
import { href, NEW_PROJECT, route, takeKey, type Route } from "./route";
import { Setup } from "./setup/Setup";
import { ended, mayLabel, mayManage, mayRead, session, signIn, signOut, unreached, whoIsIt } from "./session";
import "./style.css";
import { theme, toggleTheme } from "./theme";

function App() {
  const [broken] = useErrorBoundary();
  useEffect(() => {
    if (session.value) void flush(); // what an earlier visit could not send
  }, [session.value?.key]);
  useEffect(() => {
    if (!unreached.value) return;
    const timer = setInterval(() => void whoIsIt(), 3000);
    return () => clearInterval(timer);
  }, [unreached.value]);
  if (broken) return <Broken error={broken as Error} />;
  if (session.value === undefined) {
    return (
      <>
        <header class="bar">
          <Logo />
        </header>
        <main aria-busy={!unreached.value}>{unreached.value && <p class="notice bad">The service does not answer. Is it running?</p>}</main>
      </>
    );
  }
  if (session.value === null) return <SignIn />;
  const { project } = route.value;
  return project ? <OfProject key={project} id={project} /> : <Projects />;
}

/** In place of a blank page, where the page itself is wrong. */
function Broken({ error }: { error: Error }) {
  return (
    <main class="projects">
      <p class="notice bad" role="alert">
        This page came upon an error of its own: {error.message} Labels that were not sent are kept in this browser.{" "}
        <button class="link" onClick={() => location.reload()}>
          Load it again
        </button>
      </p>
    </main>
  );
}

function Logo() {
  return (
    <a class="logo" href="#/" aria-label="Shortlist: all projects">
      <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
        <path d="M3 6h18M3 12h11M3 18h5" />
      </svg>
      <span>Shortlist</span>
    </a>
  );
}

const mayMake = () => mayManage() && session.value?.project === null;

function Bar({ project, view }: { project: Project | null; view: Route["view"] }) {
  const tabs: [Route["view"], string][] = [
    ...(mayRead() ? ([["dashboard", "Dashboard"], ["gallery", "Gallery"], ["map", "Map"]] as [Route["view"], string][]) : []),
    ...(mayLabel() ? ([["desk", "Label"]] as [Route["view"], string][]) : []),
    ...(mayManage() ? ([["setup", "Settings"]] as [Route["view"], string][]) : []),
  ];
  const [stays, setStays] = useState(false); // signing out did not reach the service
  return (
    <header class="bar">
      <Logo />
      {project && (
        <span class="where" dir="auto">
          {project.name}
        </span>
      )}
      {project && (
        <nav aria-label="Views">
          {tabs.map(([name, text]) => (
            <a key={name} href={href(project.id, name)} aria-current={name === view ? "page" : undefined}>
              {text}
            </a>
          ))}
        </nav>
      )}
      <span class="end">
        {project && mayMake() && (
          <a href={NEW_PROJECT} aria-label="New project" title="New project">
            <span aria-hidden="true">+</span>
            <span class="hide-small"> New project</span>
          </a>
        )}
        <a class="hide-small" href="/docs">
          API
        </a>
        <button class="link" onClick={toggleTheme} aria-label={theme.value === "dark" ? "Light colours" : "Dark colours"} title={theme.value === "dark" ? "Light colours" : "Dark colours"}>
          {theme.value === "dark" ? "☀" : "☾"}
        </button>
        <button
          class={`link ${stays ? "bad" : ""}`}
          onClick={() => signOut().catch(() => setStays(true))}
          title={stays ? "The service does not answer: you are signed in still" : `Signed in with the key “${session.value?.name}”, ${session.value?.role}`}
        >
          {stays ? "Not signed out" : "Sign out"}
        </button>
      </span>
    </header>
  );
}

const VIEW_NAMES = {
  projects: "Projects",
  dashboard: "Dashboard",
  gallery: "Gallery",
  map: "Map",
  desk: "Label",
  setup: "Settings",
};

function OfProject({ id }: { id: string }) {
  const [project, setProject] = useState<Project | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const asked = route.value.view;
  const barred = (asked === "desk" && !mayLabel()) || (asked === "setup" && !mayManage());
  const view = mayRead() ? (barred ? "dashboard" : asked) : "desk";
  useEffect(() => {
    let over = false;
    const load = () =>
      get<Project>(`/projects/${encodeURIComponent(id)}`).then(
        (found) => !over && (setProject(found), setError(null)),
        (refused: Error) => {
          if (over) return;
          setError(refused);
          if (!("status" in refused)) setTimeout(load, 3000); // not reached
        },
      );
    void load();
    return () => {
      over = true;
    };
  }, [id, view]);
  useEffect(() => {
    document.title = project ? `${project.name} · Shortlist` : "Shortlist";
  }, [project?.name]);
  return (
    <>
      <Bar project={project} view={view} />
      <main class={`view-${view}`}>
        {!project && error && <p class="notice bad">{"status" in error && error.status === 404 ? `This key sees no project ${id}.` : error.message}</p>}
        {project && view === "dashboard" && <Dashboard id={project.id} />}
        {project && view !== "dashboard" && (
          <h1 class="unseen">
            {VIEW_NAMES[view]}: {project.name}
          </h1>
        )}
        {project && view === "gallery" && <Gallery project={project} />}
        {project && view === "map" && <MapView project={project} />}
        {project && view === "desk" && <Desk project={project} />}
        {project && view === "setup" && <Setup project={project} />}
      </main>
    </>
  );
}

function Projects() {
  const [pages, setPages] = useState<Page<Project> | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const more = (cursor: string | null) =>
    get<Page<Project>>("/projects", { cursor, limit: 100 }).then(
      (page) => {
        setError(null);
        setPages((before) => ({ items: cursor && before ? [...before.items, ...page.items] : page.items, next_cursor: page.next_cursor }));
        const only = page.items[0];
        if (!cursor && page.items.length === 1 && page.next_cursor === null && only && !seen.has(only.id) && !route.value.query.has("new")) {
          seen.add(only.id); // once: the way back to this list stays open
          location.replace(href(only.id));
        }
      },
      (refused: Error) => {
        setError(refused);
        if (refused instanceof Unreached) setTimeout(() => void more(cursor), 3000);
      },
    );
  useEffect(() => {
    document.title = "Shortlist";
    void more(null);
  }, []);
  return (
    <>
      <Bar project={null} view="projects" />
      <main class="projects">
        <header>
          <h1>Projects</h1>
          {mayMake() && <NewProject open={route.value.query.has("new")} setOpen={(open) => (location.hash = open ? NEW_PROJECT : href(null))} />}
        </header>
        {error && <p class="notice bad">{error.message}</p>}
        {pages?.items.length === 0 && (
          <Empty title="No projects yet">
            Make one here, start with <code>shortlist up --items PATH --classes cat,dog</code>, or POST /projects.
          </Empty>
        )}
        <ul class="project-list">
          {pages?.items.map((project, index) => (
            <li key={project.id}>
              <a href={href(project.id)}>
                <b dir="auto">{project.name}</b>
                <span class="quiet">
                  {plural(project.classes.length, "class", "classes")}
                  {project.modality ? `, ${project.modality}s` : ""}
                  {project.state !== "active" ? `, ${project.state}` : ""}
                </span>
                {mayRead() && index < COUNTED ? <HowFar id={project.id} /> : <span />}
              </a>
            </li>
          ))}
        </ul>
        {pages?.next_cursor && <button onClick={() => void more(pages.next_cursor)}>More</button>}
      </main>
    </>
  );
}

const COUNTED = 20; // projects whose figures are asked for

function HowFar({ id }: { id: string }) {
  const [metrics, setMetrics] = useState<Metrics | null>(null);
  useEffect(() => void get<Metrics>(`/projects/${id}/metrics`).then(setMetrics, () => {}), [id]);
  const newest = metrics?.learning_curve.at(-1);
  return (
    <span class="quiet">
      {metrics && (metrics.budget == null ? plural(metrics.labels_used, "label") : `${count(metrics.labels_used)} of ${plural(metrics.budget, "label")}`)}
      {newest && <>, {percent(figureOf(newest).value)}</>}
    </span>
  );
}

const seen = new Set<string>();

let startError: string | null = null;

function SignIn() {
  const [key, setKey] = useState("");
  const [error, setError] = useState<string | null>(startError);
  return (
    <main class="sign-in">
      <form
        class="card narrow"
        onSubmit={(event) => {
          event.preventDefault();
          signIn(key.trim()).catch((refused: Error) => setError(refused.message));
        }}
      >
        <h1>
          <svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true">
            <path d="M3 6h18M3 12h11M3 18h5" />
          </svg>
          Shortlist
        </h1>
        {ended.value && (
          <p class="notice" role="status">
            Your sign-in has ended. Sign in again, and you go on where you were; labels that were not sent are kept.
          </p>
        )}
        <label for="key">Key</label>
        <input id="key" type="password" autocomplete="current-password" placeholder="sl_…" value={key} onInput={(event) => setKey(event.currentTarget.value)} required autofocus />
        <button class="primary">Sign in</button>
        {error && (
          <p class="bad" role="alert">
            {error}
          </p>
        )}
        <p class="quiet">
          The key that <code>shortlist up</code> printed, or one made with <code>shortlist keys add NAME</code>. It is asked for once: this browser then stays signed in.
        </p>
      </form>
    </main>
  );
}

async function start(): Promise<void> {
  const given = takeKey();
  if (given) {
    try {
      await signIn(given);
    } catch (error) {
      startError = (error as Error).message;
    }
  }
  if (!session.value) await whoIsIt();
}

addEventListener("hashchange", () => {
  const given = takeKey(); // a link to another key, opened in this tab
  if (given) void signIn(given).catch(() => {});
});

render(<App />, document.getElementById("app") as HTMLElement);
void start();
