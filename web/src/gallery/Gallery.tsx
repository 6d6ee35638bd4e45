import { useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";

import { get, send, Unreached, withQuery, type AnsweredItem, type Content, type Item, type Page, type Project, type Similar, type Suspect } from "../api";
import { classOf, differences, guessOf, said } from "../classes";
import { percent, plural } from "../format";
import { Empty } from "../parts";
import { href, replaceQuery, route } from "../route";
import { mayManage, session } from "../session";
import { viewerOf } from "../viewers";
import { Detail } from "./Detail";

const PAGE = 200;
const LEAST_TILE = 116; // pixels; three columns on a phone
const LEAST_TEXT_TILE = 172;
const GAP = 8;
const CAPTION = 26;
const AHEAD = 1; // screens that are drawn above and below what is seen
const FILTERS = ["state", "class", "predicted_class", "split", "gold", "barred", "duplicates", "disagreed", "duplicate_of", "pretext_loss_percentile_min", "pretext_loss_percentile_max", "sort"] as const;
const MOST_SIMILAR = 200;
const ASK_AGAIN_MS = 3000; // where the service was not reached

/** What a tile shows, of an item or of a suspect. */
export interface Tile {
  id: string;
  key: string;
  content: Content;
  caption: string;
  mark: "done" | "aside" | "gold" | "suspect" | null;
}

const guess = (item: Item): string => (guessOf(item) === null ? "" : `${guessOf(item)}? ${percent(item.predicted_probability, 0)}`);

function ofItem(item: Item): Tile {
  const aside = !["available", "done"].includes(item.state);
  return {
    id: item.id,
    key: item.key,
    content: item.content,
    caption: aside ? item.state : (classOf(item) ?? (guess(item) || (item.pretext_loss_percentile === null ? "" : `loss above ${Math.floor(item.pretext_loss_percentile)}\u00a0%`))),
    mark: item.gold ? "gold" : aside ? "aside" : classOf(item) !== null ? "done" : null,
  };
}

function ofSuspect(suspect: Suspect): Tile {
  const contradicts = suspect.classes ? `${said(suspect.classes)}: ${differences(suspect.classes, suspect.suggested_classes ?? [])}` : `${suspect.class} → ${suspect.suggested_class}`;
  return { id: suspect.item, key: suspect.key, content: suspect.content, caption: `${contradicts} ${percent(suspect.probability, 0)}`, mark: "suspect" };
}

function ofAnswer(item: AnsweredItem): Tile {
  const [own, answered] = [item.measured_classes, item.answered_classes].map((names) => names && said(names));
  const [before, after] = [own ?? item.measured_class, answered ?? item.answered_class];
  const right = before === after;
  return { ...ofItem(item), caption: `${right ? "" : `${before} → `}${after} ${percent(item.answered_probability, 0)}`, mark: right ? "done" : "suspect" };
}

/** The items that the address asks for, from `cursor` on. */
async function fetched(project: string, query: URLSearchParams, cursor: string | null): Promise<{ tiles: Tile[]; next: string | null }> {
  const at = `/projects/${project}`;
  const asked = (...names: string[]) => Object.fromEntries(names.map((name) => [name, query.get(name)]));
  const page = <T,>(path: string, filters: Record<string, string | null>) => get<Page<T>>(withQuery(at + path, { ...filters, limit: PAGE, cursor }));
  const [like, round, outline] = ["like", "round", "outline"].map((name) => query.get(name));
  if (query.get("show") === "suspects") {
    const { items, next_cursor } = await page<Suspect>("/suspects", {});
    return { tiles: items.map(ofSuspect), next: next_cursor };
  }
  if (like) {
    const { items } = await get<Similar>(withQuery(`${at}/items/${encodeURIComponent(like)}/similar`, { ...asked("state"), limit: MOST_SIMILAR }));
    return { tiles: items.map((item) => ({ ...ofItem(item), caption: `${item.similarity.toFixed(2)} ${classOf(item) ?? guess(item)}` })), next: null };
  }
  if (round) {
    const { items, next_cursor } = await page<AnsweredItem>(`/rounds/${encodeURIComponent(round)}/answers`, asked("class", "answered_class", "not_class", "not_answered_class"));
    return { tiles: items.map(ofAnswer), next: next_cursor };
  }
  const { items, next_cursor } = outline ? await page<Item>("/map/items", { outline }) : await page<Item>("/items", asked(...FILTERS));
  return { tiles: items.map(ofItem), next: next_cursor };
}

/** Pages that are fetched as one scrolls; what was fetched stays. */
class Pages {
  tiles: Tile[] = [];
  error: Error | null = null;
  done = false;
  private cursor: string | null = null;
  private loading = false;
  private over = false;

  constructor(
    private readonly project: string,
    private readonly query: URLSearchParams,
    private readonly changed: () => void,
  ) {
    void this.more();
  }

  close(): void {
    this.over = true;
  }

  async more(): Promise<void> {
    if (this.loading || this.done || this.over) return;
    this.loading = true;
    try {
      const found = await fetched(this.project, this.query, this.cursor);
      this.tiles = this.tiles.concat(found.tiles);
      this.cursor = found.next;
      this.done = found.next === null;
      this.error = null;
    } catch (error) {
      this.error = error as Error;
      if (error instanceof Unreached) setTimeout(() => void this.more(), ASK_AGAIN_MS);
      else this.done = true;
    } finally {
      this.loading = false;
      if (!this.over) this.changed();
    }
  }
}

export function Gallery({ project }: { project: Project }) {
  const query = route.value.query;
  const asked = useMemo(() => {
    const only = new URLSearchParams(query);
    only.delete("item");
    return only.toString();
  }, [query]);
  const [version, reload] = useReducer((number: number) => number + 1, 0);
  const [, redraw] = useReducer((number: number) => number + 1, 0);
  const [selected, select] = useState<ReadonlySet<string>>(new Set());
  const pages = useMemo(() => new Pages(project.id, new URLSearchParams(asked), () => redraw(0)), [project.id, asked, version]);
  useEffect(() => () => pages.close(), [pages]);
  useEffect(() => select(new Set()), [asked]);

  const shown = query.get("item");
  const open = (id: string | null) => {
    const next = new URLSearchParams(query);
    if (id === null) next.delete("item");
    else next.set("item", id);
    replaceQuery(next);
  };
  const index = pages.tiles.findIndex((tile) => tile.id === shown);
  const step = (by: number) => {
    const next = pages.tiles[index + by];
    if (index >= 0 && next) open(next.id);
  };
  const toggle = (id: string) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    select(next);
  };
  return (
    <div class={`gallery ${shown ? "with-detail" : ""}`}>
      <div class="gallery-main">
        <Filters project={project} />
        {selected.size > 0 && mayManage() && (
          <Selection
            project={project}
            ids={[...selected]}
            clear={() => select(new Set())}
            changed={() => {
              select(new Set());
              reload(0);
            }}
          />
        )}
        {pages.error && <p class="notice bad">{pages.error.message}</p>}
        {pages.done && pages.tiles.length === 0 && !pages.error ? (
          <Empty title="No items here">
            {asked ? (
              <>
                Nothing fits these filters. <a href={href(project.id, "gallery")}>Show all items</a>
              </>
            ) : (
              "Import a source first."
            )}
          </Empty>
        ) : (
          <Grid pages={pages} open={open} shown={shown} selected={selected} toggle={mayManage() ? toggle : null} />
        )}
      </div>
      {shown && <Detail key={shown} project={project} id={shown} close={() => open(null)} step={step} changed={() => reload(0)} />}
    </div>
  );
}

function Grid({ pages, open, shown, selected, toggle }: { pages: Pages; open: (id: string) => void; shown: string | null; selected: ReadonlySet<string>; toggle: ((id: string) => void) | null }) {
  const holder = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ width: 0, from: 0, to: 1500 });
  useLayoutEffect(() => {
    const place = holder.current as HTMLDivElement;
    let frame = 0;
    const look = () => {
      frame = 0;
      const top = -place.getBoundingClientRect().top;
      setView((before) => {
        const now = { width: place.clientWidth, from: top - AHEAD * innerHeight, to: top + (1 + AHEAD) * innerHeight };
        return now.width === before.width && Math.abs(now.from - before.from) < innerHeight / 2 ? before : now;
      });
    };
    const soon = () => (frame ||= requestAnimationFrame(look));
    look();
    const resized = new ResizeObserver(soon);
    resized.observe(place);
    addEventListener("scroll", soon, { passive: true });
    return () => {
      cancelAnimationFrame(frame);
      resized.disconnect();
      removeEventListener("scroll", soon);
    };
  }, []);
  const columns = Math.max(2, Math.floor((view.width + GAP) / ((pages.tiles[0]?.content.kind === "text" ? LEAST_TEXT_TILE : LEAST_TILE) + GAP)));
  const side = Math.floor((view.width - (columns - 1) * GAP) / columns);
  const height = side + CAPTION + GAP;
  const rows = Math.ceil(pages.tiles.length / columns);
  const [first, last] = [Math.max(0, Math.floor(view.from / height)), Math.min(rows, Math.ceil(view.to / height))];
  useEffect(() => {
    if (last * columns >= pages.tiles.length - columns) void pages.more();
  });
  const drawn = view.width ? pages.tiles.slice(first * columns, last * columns) : [];
  return (
    <div ref={holder} class="grid" style={{ height: `${rows * height}px` }} data-testid="grid">
      {drawn.map((tile, offset) => {
        const index = first * columns + offset;
        const { Tile: Shown } = viewerOf(tile.content);
        return (
          <div
            key={tile.id}
            class={`tile ${tile.id === shown ? "current" : ""} ${selected.has(tile.id) ? "selected" : ""}`}
            style={{ width: `${side}px`, transform: `translate(${(index % columns) * (side + GAP)}px, ${Math.floor(index / columns) * height}px)` }}
          >
            <button class="picture" style={{ height: `${side}px` }} onClick={() => open(tile.id)} title={tile.key}>
              <Shown content={tile.content} name={tile.key} />
            </button>
            {toggle && <input type="checkbox" aria-label={`Select ${tile.key}`} checked={selected.has(tile.id)} onChange={() => toggle(tile.id)} />}
            <span class={`caption ${tile.mark ?? ""}`} dir="auto">
              {tile.caption}
            </span>
          </div>
        );
      })}
    </div>
  );
}

const STATES = { "": "all states", available: "to label", done: "labeled", broken: "broken", quarantined: "quarantined", withdrawn: "withdrawn" };
const SORTS = { "": "by name", rank: "next in the ranking first", predicted_probability: "least sure first", "-pretext_loss": "highest loss first", pretext_loss: "lowest loss first", "-key": "by name, backwards" };
const SHOWS = { "": "all items", suspects: "suspects", disagreed: "disagreed on", duplicates: "duplicates", gold: "gold items", barred: "barred items" };

function Filters({ project }: { project: Project }) {
  const query = route.value.query;
  const set = (name: string, value: string) => {
    const next = new URLSearchParams(query);
    if (value) next.set(name, value);
    else next.delete(name);
    replaceQuery(next);
  };
  const show = query.get("show") === "suspects" ? "suspects" : (["disagreed", "duplicates", "gold", "barred"].find((name) => query.get(name)) ?? "");
  const setShow = (value: string) => {
    const next = new URLSearchParams(query);
    for (const name of ["show", "disagreed", "duplicates", "gold", "barred"]) next.delete(name);
    if (value === "suspects") next.set("show", value);
    else if (value) next.set(value, "true");
    replaceQuery(next);
  };
  const [low, high] = [query.get("pretext_loss_percentile_min") ?? "", query.get("pretext_loss_percentile_max") ?? ""];
  const named = special(query);
  const suspects = show === "suspects";
  return (
    <form class="filters" aria-label="Filters" onSubmit={(event) => event.preventDefault()}>
      {named ? (
        <b class="special" dir="auto">
          {named}
        </b>
      ) : (
        <Choice label="Show" value={show} options={SHOWS} onChange={setShow} />
      )}
      {query.get("like") && <Choice label="State" value={query.get("state") ?? ""} options={STATES} onChange={(value) => set("state", value)} />}
      {!suspects && !named && (
        <>
          <Choice label="State" value={query.get("state") ?? ""} options={STATES} onChange={(value) => set("state", value)} />
          <Choice label="Class" value={query.get("class") ?? ""} options={{ "": "all classes", ...Object.fromEntries(project.classes.map((name) => [name, name])) }} onChange={(value) => set("class", value)} />
          <Choice label="Guess" value={query.get("predicted_class") ?? ""} options={{ "": "all guesses", ...Object.fromEntries(project.classes.map((name) => [name, `guess: ${name}`])) }} onChange={(value) => set("predicted_class", value)} />
          <Choice label="Split" value={query.get("split") ?? ""} options={{ "": "pool and test", pool: "pool", test: "test split" }} onChange={(value) => set("split", value)} />
          <Choice label="Sorted" value={query.get("sort") ?? ""} options={SORTS} onChange={(value) => set("sort", value)} />
          <span class="range">
            loss percentile
            <input type="number" min="0" max="100" step="any" aria-label="Least percentile of the pretext loss" placeholder="0" value={low} onChange={(event) => set("pretext_loss_percentile_min", event.currentTarget.value)} />
            to
            <input type="number" min="0" max="100" step="any" aria-label="Highest percentile of the pretext loss" placeholder="100" value={high} onChange={(event) => set("pretext_loss_percentile_max", event.currentTarget.value)} />
          </span>
        </>
      )}
      {query.get("duplicate_of") && (
        <button type="button" onClick={() => set("duplicate_of", "")}>
          duplicates of {query.get("duplicate_of")} ✕
        </button>
      )}
      {[...query.keys()].some((name) => name !== "item") && (
        <a class="quiet" href={href(project.id, "gallery")}>
          clear
        </a>
      )}
    </form>
  );
}

/** What is shown in place of a filtered list, in words. */
function special(query: URLSearchParams): string | null {
  if (query.get("like")) return `Like ${query.get("like")}, most similar first`;
  if (query.get("outline")) return "Inside an outline on the map";
  if (!query.get("round")) return null;
  const [own, answered, without, missed] = ["class", "answered_class", "not_class", "not_answered_class"].map((name) => query.get(name));
  const about = without ?? missed;
  if (about) {
    const there = without ? `Without ${about}` : `With ${about}`;
    const told = without ? (answered ? "and the head says it is there" : "as the head says") : "that the head missed";
    return `${there}, ${told}, round ${query.get("round")}, surest first`;
  }
  const what = own == null ? "Items" : own === answered ? `${own} that was recognised` : own;
  return `${what}${answered != null && own !== answered ? ` taken for ${answered}` : ""}, round ${query.get("round")}, surest first`;
}

function Choice({ label, value, options, onChange }: { label: string; value: string; options: Record<string, string>; onChange: (value: string) => void }) {
  return (
    <select aria-label={label} value={value} class={value ? "set" : ""} onChange={(event) => onChange(event.currentTarget.value)}>
      {Object.entries(options).map(([name, text]) => (
        <option key={name} value={name}>
          {text}
        </option>
      ))}
    </select>
  );
}

/** The annotator of what is said of an item outside the desk: who labels in this browser, or else the key. */
const whoSays = () => session.value?.annotator ?? (localStorage.getItem("shortlist.annotator") || session.value?.name || "page");

function Selection({ project, ids, clear, changed }: { project: Project; ids: string[]; clear: () => void; changed: () => void }) {
  const [refused, setRefused] = useState<string | null>(null);
  const several = project.label_kind === "multi";
  const at = `/projects/${project.id}`;
  const act = async (path: string, entry: (id: string) => unknown = (id) => id, field = "items") => {
    try {
      for (let from = 0; from < ids.length; from += 1000) await send("POST", path, { [field]: ids.slice(from, from + 1000).map(entry) });
      changed();
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  return (
    <div class="selection" role="toolbar" aria-label="Selected items">
      <b>{plural(ids.length, "item")} selected</b>
      <button onClick={() => void act(`${at}/queue`)} title="Have them labeled before all others">
        Label next
      </button>
      <button onClick={() => void act(`${at}/items/withdraw`)} title="Nobody is asked for them, no head trains on them">
        Withdraw
      </button>
      <button onClick={() => void act(`${at}/labels`, (id) => ({ item: id, skip: "broken", annotator: whoSays() }), "labels")} title="As annotators do: they leave the pool, and what looks like them comes last">
        Broken
      </button>
      <button onClick={() => void act(`${at}/items/restore`)} title="Put withdrawn, broken or quarantined items back">
        Restore
      </button>
      <select
        aria-label="Gold"
        title="Say for certain what they are: gold items tell how well annotators do"
        value=""
        onChange={(event) => {
          const value = event.currentTarget.value;
          event.currentTarget.value = "";
          if (value === "-") void act(`${at}/gold/unmark`);
          else if (value) void act(`${at}/gold`, (id) => ({ item: id, ...(several ? { classes: value === "=" ? [] : [value.slice(1)] } : { class: value.slice(1) }) }));
        }}
      >
        <option value="">Gold…</option>
        {project.classes.map((name) => (
          <option key={name} value={`=${name}`}>
            surely {several ? `just ${name}` : name}
          </option>
        ))}
        {several && <option value="=">surely none of them</option>}
        <option value="-">gold no more</option>
      </select>
      <button class="link" onClick={clear}>
        clear
      </button>
      {refused && <span class="bad">{refused}</span>}
    </div>
  );
}
