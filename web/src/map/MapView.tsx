// The pool as points, near where items are alike: looked at, opened, and taken with a lasso.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { get, Refused, send, type Item, type Job, type Page, type Project } from "../api";
import { count, percent, plural } from "../format";
import { Detail } from "../gallery/Detail";
import { Empty, Progress } from "../parts";
import { href, replaceQuery, route } from "../route";
import { mayManage } from "../session";
import { theme } from "../theme";
import { viewerOf } from "../viewers";
import { BYS, coloured, said, type By, type Colouring } from "./colours";
import { Finder, itemId, loadMap, rowsInside, SIDE, simplified, type Corner, type MapData } from "./data";
import { painterOn, type Painter, type View } from "./points";

const ASK_AGAIN_MS = 3000;
const REACH = 12; // pixels around the pointer
const CLOSEST = 400; // times as large as the whole
const MOST_QUEUED = 1000;
const MARGIN = 0.04;

export function MapView({ project }: { project: Project }) {
  const asked = route.value.query.get("class");
  const about = project.label_kind !== "multi" ? null : project.classes.includes(asked ?? "") ? asked : (project.classes[0] ?? null);
  const { data, missing, refused } = useMap(project.id, about);
  if (refused) return <p class="notice bad">{refused}</p>;
  if (missing) return <NoMap project={project} reason={missing} />;
  if (!data) return <div class="map-view" aria-busy="true" />;
  if (data.items === 0) return <Empty title="Nothing to map">There are no scored items.</Empty>;
  return <Sheet project={project} data={data} about={about} />;
}

function useMap(project: string, about: string | null) {
  const [state, setState] = useState<{ data: MapData | null; missing: Refused | null; refused: string | null }>({ data: null, missing: null, refused: null });
  useEffect(() => {
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const load = async () => {
      try {
        const data = await loadMap(project, about);
        if (!over) setState({ data, missing: null, refused: null });
      } catch (error) {
        if (over) return;
        const missing = error instanceof Refused && ["map_missing", "no_score_run"].includes(error.code) ? error : null;
        if (missing?.code === "map_missing") await send("POST", `/projects/${project}/map`).catch(() => {}); // whoever looks has it drawn
        if (missing || !(error instanceof Refused)) timer = setTimeout(load, ASK_AGAIN_MS); // drawn later, or not reached
        setState({ data: null, missing, refused: missing ? null : (error as Error).message });
      }
    };
    void load();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [project, about]);
  return state;
}

function NoMap({ project, reason }: { project: Project; reason: Refused }) {
  const [jobs, setJobs] = useState<Job[] | null>(null);
  useEffect(() => {
    void get<Page<Job>>("/jobs", { project: project.id, limit: 50 }).then((page) => setJobs(page.items), () => {});
  }, [reason]);
  const coming = jobs?.find((job) => ["map_items", "index_items", "rank", "score_pool", "score_raw"].includes(job.kind) && ["queued", "running"].includes(job.state));
  if (reason.code === "no_score_run") {
    return <Empty title="No map yet">It follows the first score run: import items, and it comes by itself.</Empty>;
  }
  return (
    <Empty title="The map is not drawn yet">
      {coming ? (
        <>
          {coming.kind === "map_items" ? "It is being drawn." : `It follows the job “${coming.kind.replaceAll("_", " ")}”.`} {coming.waits_for ? `Waits for ${coming.waits_for}.` : ""}
          <br />
          {coming.state === "running" && <Progress value={coming.progress} label="Progress of the map" />}
        </>
      ) : (
        "It is drawn now that somebody looks."
      )}
    </Empty>
  );
}

/** The whole map in a canvas of so many pixels. */
function whole(width: number, height: number): View {
  const scale = ((1 - 2 * MARGIN) * Math.min(width, height)) / SIDE;
  return { scale, x: (width - SIDE * scale) / 2, y: (height - SIDE * scale) / 2 };
}

function Sheet({ project, data, about }: { project: Project; data: MapData; about: string | null }) {
  const query = route.value.query;
  const by = (query.get("by") ?? (data.class.some((each) => each >= 0) ? "class" : "loss")) as By;
  const dark = theme.value === "dark";
  const colouring = useMemo(() => coloured(data, by in BYS ? by : "class", dark), [data, by, dark]);
  const [only, setOnly] = useState<number | null>(null);
  const [lasso, setLasso] = useState(false);
  const [outline, setOutline] = useState<Corner[]>([]);
  const [hovered, hover] = useState<{ row: number; x: number; y: number } | null>(null);
  const inside = useMemo(() => (outline.length > 2 ? rowsInside(data, outline) : null), [data, outline]);
  useEffect(() => setOnly(null), [colouring]);
  const set = (name: string, value: string | null) => {
    const next = new URLSearchParams(query);
    if (value === null) next.delete(name);
    else next.set(name, value);
    replaceQuery(next);
  };
  const shown = query.get("item");
  const row = useMemo(() => (shown ? data.id.findIndex((number) => itemId(number) === shown) : -1), [data, shown]);
  return (
    <div class={`map-view ${shown ? "with-detail" : ""}`}>
      <div class="map-main">
        <div class="filters" role="toolbar" aria-label="Map">
          <label class="inline">
            Coloured by
            <select value={by} onChange={(event) => set("by", event.currentTarget.value)}>
              {Object.entries(BYS).map(([name, text]) => (
                <option key={name} value={name}>
                  {text}
                </option>
              ))}
            </select>
          </label>
          {about !== null && ["class", "guess"].includes(by) && (
            <select aria-label="Class" value={about} onChange={(event) => set("class", event.currentTarget.value)}>
              {project.classes.map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          )}
          <button aria-pressed={lasso} onClick={() => setLasso(!lasso)} title="Draw around points; or hold Shift and drag">
            Lasso
          </button>
          <span class="quiet">
            {plural(data.items, "item")}
            {colouring.known < data.items && `, ${count(colouring.known)} of them coloured`}
          </span>
        </div>
        {inside && <Taken project={project.id} data={data} rows={inside} outline={outline} clear={() => setOutline([])} />}
        <div class="map-stage">
          <Canvas data={data} colouring={colouring} only={only} lasso={lasso} outline={outline} marked={row} setOutline={setOutline} hover={hover} open={(id) => set("item", id)} />
          {hovered && <Tip project={project.id} data={data} at={hovered} />}
          <Legend project={project.id} by={by} about={about} colouring={colouring} only={only} setOnly={setOnly} />
        </div>
        <p class="quiet map-help">
          Drag to move, wheel or two fingers to come closer, click a point to open it. <span class="hide-small">By keyboard: arrows, + and −, 0 for all, Enter opens the point in the middle, V takes what is in view. </span>Near means alike; how far apart groups lie means little.
        </p>
      </div>
      {shown && <Detail key={shown} project={project} id={shown} close={() => set("item", null)} changed={() => {}} />}
    </div>
  );
}

interface CanvasProps {
  data: MapData;
  colouring: Colouring;
  only: number | null;
  lasso: boolean;
  outline: Corner[];
  marked: number;
  setOutline: (outline: Corner[]) => void;
  hover: (at: { row: number; x: number; y: number } | null) => void;
  open: (id: string) => void;
}

function Canvas({ data, colouring, only, lasso, outline, marked, setOutline, hover, open }: CanvasProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const lines = useRef<SVGSVGElement>(null);
  const painter = useRef<Painter | null>(null);
  const view = useRef<View | null>(null);
  const frame = useRef(0);
  const finder = useMemo(() => new Finder(data), [data]);
  const [moved, setMoved] = useState(0); // the lines follow the points

  const pixels = () => (canvas.current ? canvas.current.width / canvas.current.clientWidth : 1);
  const draw = () => {
    frame.current ||= requestAnimationFrame(() => {
      frame.current = 0;
      const place = canvas.current;
      if (!place || !view.current) return;
      const closer = view.current.scale / whole(place.width, place.height).scale;
      const least = data.items > 50_000 ? 1.6 : data.items > 5_000 ? 2.6 : 4.5;
      painter.current?.draw(view.current, Math.min(14, least * Math.sqrt(closer) + 0.6) * pixels());
      setMoved((number) => number + 1);
      place.dataset.frames = String(Number(place.dataset.frames ?? 0) + 1);
    });
  };
  /** A place on the map, of one in the window. */
  const placeOf = (x: number, y: number): Corner => {
    const box = (canvas.current as HTMLCanvasElement).getBoundingClientRect();
    const { scale, x: left, y: top } = view.current as View;
    return [((x - box.left) * pixels() - left) / scale, SIDE - ((y - box.top) * pixels() - top) / scale];
  };
  const zoom = (by: number, x?: number, y?: number) => {
    const place = canvas.current as HTMLCanvasElement;
    const box = place.getBoundingClientRect();
    const before = view.current as View;
    const [atX, atY] = [((x ?? box.left + box.width / 2) - box.left) * pixels(), ((y ?? box.top + box.height / 2) - box.top) * pixels()];
    const least = whole(place.width, place.height).scale;
    const scale = Math.max(0.5 * least, Math.min(CLOSEST * least, before.scale * by));
    const factor = scale / before.scale;
    view.current = { scale, x: atX - factor * (atX - before.x), y: atY - factor * (atY - before.y) };
    draw();
  };
  const shift = (x: number, y: number) => {
    const before = view.current as View;
    view.current = { ...before, x: before.x + x * pixels(), y: before.y + y * pixels() };
    draw();
  };

  useEffect(() => {
    const place = canvas.current as HTMLCanvasElement;
    painter.current = painterOn(place, data);
    const fit = () => {
      const ratio = Math.min(2, devicePixelRatio);
      const [width, height] = [Math.round(place.clientWidth * ratio), Math.round(place.clientHeight * ratio)];
      if (!width || !height) return;
      const before = view.current && { ...view.current, width: place.width, height: place.height };
      [place.width, place.height] = [width, height];
      view.current = before ? { scale: before.scale, x: before.x + (width - before.width) / 2, y: before.y + (height - before.height) / 2 } : whole(width, height);
      draw();
    };
    const resized = new ResizeObserver(fit);
    resized.observe(place);
    fit();
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
    };
    place.addEventListener("wheel", wheel, { passive: false });
    return () => {
      resized.disconnect();
      place.removeEventListener("wheel", wheel);
      cancelAnimationFrame(frame.current);
      frame.current = 0;
    };
  }, [data]);
  useEffect(() => {
    painter.current?.colour(colouring, only);
    draw();
  }, [colouring, only, data]);

  const fingers = useRef(new Map<number, { x: number; y: number }>());
  const drawing = useRef<Corner[] | null>(null);
  const began = useRef<{ x: number; y: number } | null>(null);
  const down = (event: PointerEvent) => {
    fingers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    began.current = fingers.current.size === 1 ? { x: event.clientX, y: event.clientY } : null;
    drawing.current = (lasso || event.shiftKey) && fingers.current.size === 1 ? [placeOf(event.clientX, event.clientY)] : null;
  };
  const move = (event: PointerEvent) => {
    const before = fingers.current.get(event.pointerId);
    const now = { x: event.clientX, y: event.clientY };
    if (!before) {
      const [x, y] = placeOf(now.x, now.y);
      const row = finder.nearest(x, y, (REACH * pixels()) / (view.current as View).scale);
      const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
      hover(row < 0 ? null : { row, x: now.x - box.left, y: now.y - box.top });
      return;
    }
    hover(null);
    const other = [...fingers.current].find(([id]) => id !== event.pointerId)?.[1];
    fingers.current.set(event.pointerId, now);
    if (drawing.current) {
      // Browsers tell of moves once a frame; an outline takes those in between, too.
      for (const each of event.getCoalescedEvents()) drawing.current.push(placeOf(each.clientX, each.clientY));
      setMoved((number) => number + 1);
    } else if (other) {
      const far = (from: { x: number; y: number }) => Math.max(1, Math.hypot(from.x - other.x, from.y - other.y));
      zoom(far(now) / far(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else shift(now.x - before.x, now.y - before.y);
  };
  const up = (event: PointerEvent) => {
    fingers.current.delete(event.pointerId);
    const clicked = began.current && Math.hypot(event.clientX - began.current.x, event.clientY - began.current.y) < 5;
    began.current = null;
    if (drawing.current && !clicked) setOutline(simplified(drawing.current));
    else if (clicked) openNear(event.clientX, event.clientY, REACH);
    drawing.current = null;
  };
  const openNear = (x: number, y: number, reach: number) => {
    const [placeX, placeY] = placeOf(x, y);
    const row = finder.nearest(placeX, placeY, (reach * pixels()) / (view.current as View).scale);
    if (row >= 0) open(itemId(data.id[row]!));
  };
  const key = (event: KeyboardEvent) => {
    const place = canvas.current as HTMLCanvasElement;
    const box = place.getBoundingClientRect();
    const step = 0.15 * Math.min(box.width, box.height);
    const act = {
      ArrowLeft: () => shift(step, 0), ArrowRight: () => shift(-step, 0), ArrowUp: () => shift(0, step), ArrowDown: () => shift(0, -step),
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5),
      "0": () => ((view.current = whole(place.width, place.height)), draw()),
      Enter: () => openNear(box.left + box.width / 2, box.top + box.height / 2, Math.max(box.width, box.height)),
      v: () => setOutline([placeOf(box.left, box.top), placeOf(box.right, box.top), placeOf(box.right, box.bottom), placeOf(box.left, box.bottom)].map(([x, y]) => [Math.round(x), Math.round(y)])),
      Escape: () => setOutline([]),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  };
  const onSheet = ([x, y]: Corner): string => {
    const { scale, x: left, y: top } = view.current as View;
    return `${((x * scale + left) / pixels()).toFixed(1)},${(((SIDE - y) * scale + top) / pixels()).toFixed(1)}`;
  };
  const corners = drawing.current ?? outline;
  return (
    <>
      <canvas
        ref={canvas}
        key={data.scoreRun}
        class={lasso ? "lasso" : ""}
        tabIndex={0}
        role="application"
        aria-label={`Map of ${plural(data.items, "item")}. Arrows move, plus and minus come closer, Enter opens the item in the middle, V takes what is in view.`}
        data-testid="map"
        data-items={data.items}
        onPointerDown={down}
        onPointerMove={move}
        onPointerUp={up}
        onPointerCancel={up}
        onPointerLeave={() => hover(null)}
        onKeyDown={key}
      />
      <svg ref={lines} aria-hidden="true" data-moved={moved}>
        {view.current && corners.length > 1 && <polygon points={corners.map(onSheet).join(" ")} />}
        {view.current && marked >= 0 && <circle cx={onSheet([data.x[marked]!, data.y[marked]!]).split(",")[0]} cy={onSheet([data.x[marked]!, data.y[marked]!]).split(",")[1]} r="9" />}
      </svg>
    </>
  );
}

function Tip({ project, data, at }: { project: string; data: MapData; at: { row: number; x: number; y: number } }) {
  const id = itemId(data.id[at.row]!);
  const [item, setItem] = useState<Item | null>(null);
  useEffect(() => {
    let over = false;
    const timer = setTimeout(() => void get<Item>(`/projects/${project}/items/${id}`).then((found) => over || setItem(found), () => {}), 60);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [id]);
  const Tile = item?.id === id ? viewerOf(item.content).Tile : null;
  return (
    <div class="map-tip" style={{ "--x": `${at.x}px`, "--y": `${at.y}px` }} data-testid="map-tip">
      <div class="tip-picture">{item && Tile && <Tile content={item.content} name={item.key} />}</div>
      <span>{said(data, at.row)}</span>
    </div>
  );
}

/** Where a group is listed as pictures: what needs no map. */
function listed(project: string, by: By, name: string): string | null {
  if (by === "class") return href(project, "gallery", { class: name });
  if (by === "guess") return href(project, "gallery", { predicted_class: name });
  return null;
}

function Legend({ project, by, about, colouring, only, setOnly }: { project: string; by: By; about: string | null; colouring: Colouring; only: number | null; setOnly: (number: number | null) => void }) {
  if (colouring.known === 0) {
    const missing = { class: "Nothing is labeled yet.", guess: "There is no head yet.", doubt: "There is no head yet.", loss: "There are no pretext losses yet.", arm: "Nothing is labeled yet.", round: "Nothing is labeled yet." };
    return <p class="map-legend">{missing[by]}</p>;
  }
  if (!colouring.groups) {
    return (
      <div class="map-legend">
        <span class="map-ramp" style={{ "--ramp": colouring.palette.slice(1).join(",") }} />
        <span class="ends">
          <span>{colouring.ends[0]}</span>
          <span>{colouring.ends[1]}</span>
        </span>
      </div>
    );
  }
  return (
    <ul class="map-legend" aria-label="Colours">
      {colouring.groups.map((group) => {
        const link = listed(project, by, group.name);
        return (
          <li key={group.name}>
            <button class="link" aria-pressed={only === group.number} onClick={() => setOnly(only === group.number ? null : group.number)} title="Show only these in colour">
              <i style={{ background: group.colour }} />
              <span dir="auto">{group.name}</span>
            </button>
            {link && (about === null ? !group.name.endsWith(" others") : group.name === about) ? <a href={link} aria-label={`${plural(group.count, "item")} of ${group.name}, in the gallery`}>{count(group.count)}</a> : <span class="quiet">{count(group.count)}</span>}
          </li>
        );
      })}
    </ul>
  );
}

function Taken({ project, data, rows, outline, clear }: { project: string; data: MapData; rows: number[]; outline: Corner[]; clear: () => void }) {
  const [told, tell] = useState<{ text: string; bad: boolean } | null>(null);
  useEffect(() => tell(null), [rows]);
  const open = rows.filter((row) => data.states[data.state[row]!] === "available");
  const queue = async () => {
    try {
      const { added } = await send<{ added: number }>("POST", `/projects/${project}/queue`, { items: open.slice(0, MOST_QUEUED).map((row) => itemId(data.id[row]!)) });
      tell({ text: `${plural(added, "item")} will be labeled next.`, bad: false });
    } catch (error) {
      tell({ text: (error as Error).message, bad: true });
    }
  };
  const labeled = rows.filter((row) => data.class[row]! >= 0);
  return (
    <div class="selection" role="toolbar" aria-label="Items in the outline" data-testid="taken">
      <b>{plural(rows.length, "item")} inside</b>
      <span class="quiet">{rows.length > 0 && `${percent(labeled.length / rows.length, 0)} labeled`}</span>
      {rows.length > 0 && (
        <a class="button" href={href(project, "gallery", { outline: outline.flat().join(",") })}>
          Show in the gallery
        </a>
      )}
      {mayManage() && open.length > 0 && <button onClick={() => void queue()}>Label {open.length > MOST_QUEUED ? `${count(MOST_QUEUED)} of them` : plural(open.length, "item")} next</button>}
      <button class="link" onClick={clear}>
        clear
      </button>
      {told && (
        <span role="status" class={told.bad ? "bad" : ""}>
          {told.text}
        </span>
      )}
    </div>
  );
}
