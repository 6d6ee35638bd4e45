import { useEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";

import type { LabelIn, Project } from "../api";
import { NOTHING, said } from "../classes";
import { count, percent, plural } from "../format";
import { href } from "../route";
import { mayRead, session } from "../session";
import { Empty, Progress } from "../parts";
import { viewerOf } from "../viewers";
import { inWords } from "../why";
import { answered, dismiss, flush, offline, put, takeBack, tell, told, waiting } from "./outbox";
import { Grid, gridOf } from "./Grid";
import { Neighbours } from "./Neighbours";
import { forget, Queue, type Mode, type OnDesk } from "./queue";
import { LightRoom, PLAIN, Zoom, type Light } from "./Zoom";

const KEYS = "1234567890";
const UNDO = 30; // decisions that can be taken back

type Skip = NonNullable<LabelIn["skip"]>;
/** What was decided at once: one item, or those of a grid that were confirmed together. */
interface Decision {
  on: OnDesk[];
  said: string;
  classes?: string[];
}

function useSetting(name: string, fallback: string): [string, (value: string) => void] {
  const key = `shortlist.${name}`;
  const [value, setValue] = useState(() => localStorage.getItem(key) ?? fallback);
  return [
    value,
    (next) => {
      localStorage.setItem(key, next);
      setValue(next);
    },
  ];
}

export function Desk({ project }: { project: Project }) {
  const bound = session.value?.annotator ?? null;
  const [chosen, choose] = useSetting("annotator", "");
  const annotator = bound ?? chosen;
  const [mode, setMode] = useState<Mode>(null);
  if (!annotator) return <AskName onName={choose} />;
  return <AtDesk key={`${project.id}/${annotator}/${mode?.grid}`} project={project} annotator={annotator} mode={mode} setMode={setMode} rename={bound ? null : () => choose("")} />;
}

function AskName({ onName }: { onName: (name: string) => void }) {
  const [name, setName] = useState("");
  return (
    <form
      class="card narrow"
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim()) onName(name.trim());
      }}
    >
      <h1>Who labels?</h1>
      <p class="quiet">Your labels carry this name, so that agreement between annotators can be told. It is remembered in this browser.</p>
      <label for="annotator">Your name</label>
      <input id="annotator" value={name} onInput={(event) => setName(event.currentTarget.value)} autocomplete="nickname" maxLength={200} required autofocus />
      <button class="primary">Start labeling</button>
    </form>
  );
}

const REASONS: Record<string, string> = {
  pool_exhausted: "Every item has been served. Import more, or look at what was labeled.",
  all_reserved: "Others hold all that is left. What they do not label comes free by itself; this page asks again.",
  not_your_turn: "What is left was labeled by you already, or is kept for others.",
  budget_spent: "The budget of this project is spent.",
  annotator_limit: "You have labeled as many as one annotator may.",
  project_paused: "This project is paused: nothing is served until somebody resumes it.",
  none_predicted: "No item that waits in the ranking is taken for this class. Take another one, or label one by one.",
  project_archived: "This project is archived: nothing changes in it any more.",
};

function AtDesk({ project, annotator, mode, setMode, rename }: { project: Project; annotator: string; mode: Mode; setMode: (mode: Mode) => void; rename: (() => void) | null }) {
  const [, redraw] = useReducer((number: number) => number + 1, 0);
  const queue = useMemo(() => new Queue(project.id, annotator, mode, () => redraw(0)), []);
  const done = useRef<Decision[]>([]);
  const [labeled, setLabeled] = useState(0);
  const [shown, show] = useSetting("predictions", "hidden");
  const [whyOpen, setWhyOpen] = useState(false);
  const [light, setLight] = useState<Light>(PLAIN);
  const [lightOpen, setLightOpen] = useState(false);
  const [typed, setTyped] = useState("");
  const [beside, setBeside] = useState(false);
  // Of several classes an item, those that were chosen. They are this item's: what is pressed as the next one comes is not lost.
  const [marks, setMarks] = useState<{ item: string; names: ReadonlySet<string> }>({ item: "", names: new Set() });
  const [wrong, setWrong] = useState<ReadonlySet<string>>(new Set());
  const [asked, setAsked] = useState<ReadonlySet<string>>(new Set()); // batches whose grid was sent: the rest one by one
  const since = useRef(performance.now());
  const flash = useRef<HTMLDivElement>(null);
  const typing = useRef<HTMLInputElement>(null);
  const several = project.label_kind === "multi";
  const many = project.classes.length > KEYS.length;

  useEffect(() => {
    void flush();
    return () => queue.close();
  }, []);

  const on = queue.items[0];
  const marked = on && marks.item === on.item.id ? marks.names : new Set<string>();
  const grid = mode && on && !asked.has(on.batch) ? gridOf(queue.items.filter((each) => each.batch === on.batch)) : null;
  useEffect(() => {
    since.current = performance.now();
    setTyped("");
    setBeside(false);
  }, [grid ? grid.items[0]?.batch : on?.item.id]);

  const decide = (what: { class: string } | { classes: string[] } | { skip: Skip }) => {
    const taken = queue.items[0];
    if (!taken) return;
    const duration = Math.min(2 ** 31 - 1, Math.round(performance.now() - since.current));
    try {
      put(project.id, { item: taken.item.id, annotator, batch: taken.batch, duration_ms: duration, ...what });
    } catch {
      tell(taken.item.id, "this browser’s storage is full. Free some, then label it again.");
      return;
    }
    queue.decided.add(taken.item.id);
    queue.take();
    const told = "class" in what ? what.class : "classes" in what ? said(what.classes) : what.skip;
    remember({ on: [taken], said: told, ...("classes" in what ? { classes: what.classes } : {}) });
    setLabeled((number) => number + 1);
    if (flash.current) flash.current.textContent = "skip" in what ? `skipped: ${told}` : told;
  };

  /** A class is chosen: where an item has several it is marked, and Enter sends those that are. */
  const choose = (name: string) => {
    if (!several) return decide({ class: name });
    const next = new Set(marked);
    if (!next.delete(name)) next.add(name);
    if (on) setMarks({ item: on.item.id, names: next });
    setTyped("");
  };
  const sendMarked = () => decide({ classes: project.classes.filter((name) => marked.has(name)) });

  const remember = (decision: Decision) => {
    done.current.push(decision);
    if (done.current.length > UNDO) (done.current.shift() as Decision).on.forEach(forget);
  };

  /** All of the grid but what was marked gets its class; the rest comes one by one. */
  const sendGrid = () => {
    if (!grid) return;
    const right = grid.items.filter((each) => !wrong.has(each.item.id));
    const duration = Math.min(2 ** 31 - 1, Math.round((performance.now() - since.current) / grid.items.length));
    try {
      for (const each of right) put(project.id, { item: each.item.id, annotator, batch: each.batch, duration_ms: duration, ...grid.label });
    } catch {
      for (const each of right) takeBack(project.id, each.item.id, annotator);
      tell((right[0] as OnDesk).item.id, "this browser’s storage is full. Free some, then send the grid again.");
      return;
    }
    for (const each of right) queue.decided.add(each.item.id);
    setAsked(new Set([...asked, (grid.items[0] as OnDesk).batch]));
    setWrong(new Set());
    queue.remove(right);
    if (right.length) remember({ on: right, said: `${right.length} × ${grid.name}` });
    setLabeled((number) => number + right.length);
    if (flash.current) flash.current.textContent = `${right.length} × ${grid.name}`;
  };

  const undo = () => {
    const newest = done.current.pop();
    if (!newest) return;
    for (const each of newest.on) {
      takeBack(project.id, each.item.id, annotator);
      queue.decided.delete(each.item.id);
    }
    queue.putBack(...newest.on);
    if (newest.classes) setMarks({ item: (newest.on[0] as OnDesk).item.id, names: new Set(newest.classes) });
    if (newest.on.length > 1) setAsked(new Set([...asked].filter((batch) => batch !== (newest.on[0] as OnDesk).batch)));
    setLabeled((number) => number - newest.on.length);
    if (flash.current) flash.current.textContent = `undone: ${newest.said}`;
  };

  const fitting = typed ? project.classes.filter((name) => name.toLowerCase().includes(typed.toLowerCase())) : project.classes;
  const columns = project.classes.length > 5 ? Math.ceil(project.classes.length / 2) : project.classes.length;
  const prediction = shown === "shown" ? (on?.item.prediction ?? null) : null;

  const predicted = (name: string) => prediction?.class === name || (prediction?.classes?.includes(name) ?? false);

  const onKey = useRef((_: KeyboardEvent) => {});
  onKey.current = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (field && event.target !== typing.current) return;
    const key = event.key;
    const act = (() => {
      if (key === "Backspace" && !typed) return undo;
      if (!on) return null;
      if (grid) return key === "Enter" && !(event.target instanceof HTMLButtonElement && !event.target.dataset.item) ? sendGrid : null;
      if (key === "?") return () => decide({ skip: "unsure" });
      if (key === "!") return () => decide({ skip: "broken" });
      if (key === "Escape") return () => (setTyped(""), setWhyOpen(false));
      if (many) {
        const best = fitting[0];
        if (key === "Enter" && typed && best !== undefined) return () => choose(best);
        if (key === "Enter" && !typed && several) return sendMarked;
        if (key === "Enter" && !typed && prediction?.class) return () => decide({ class: prediction.class! });
        if (!field && key.length === 1 && key !== " ") return () => (typing.current?.focus(), setTyped(typed + key));
        return null;
      }
      const name = project.classes[KEYS.indexOf(key)];
      if (key.length === 1 && name !== undefined && KEYS.includes(key)) return () => choose(name);
      if (key === "Enter" && several && !(event.target instanceof HTMLButtonElement)) return sendMarked;
      if (key === "Enter" && prediction?.class && !(event.target instanceof HTMLButtonElement)) return () => decide({ class: prediction.class! });
      const letter = key.toLowerCase();
      if (letter === "u") return () => decide({ skip: "unsure" });
      if (letter === "b") return () => decide({ skip: "broken" });
      if (letter === "z") return undo;
      if (letter === "p") return () => show(shown === "shown" ? "hidden" : "shown");
      if (letter === "i") return () => setWhyOpen(!whyOpen);
      if (letter === "n" && on.item.arm !== "control") return () => setBeside(!beside);
      return null;
    })();
    if (!act || event.repeat) return;
    event.preventDefault();
    act();
  };
  useEffect(() => {
    const listen = (event: KeyboardEvent) => onKey.current(event);
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);

  const used = answered.value?.project === project.id ? answered.value.labelsUsed : null;
  return (
    <div class="desk" data-ahead={queue.items.length}>
      <header class="desk-bar">
        <span>
          <b>{annotator}</b>{" "}
          {rename && (
            <button class="link" onClick={rename}>
              change
            </button>
          )}
        </span>
        <span class="desk-progress" aria-live="off">
          <span>
            <b data-testid="labeled">{count(labeled)}</b> labeled<span class="hide-small"> here</span>
          </span>
          {used !== null && <RoundProgress used={used} size={project.round_size} budget={project.budget ?? null} />}
        </span>
        <ModeChoice project={project} mode={mode} setMode={(next) => void queue.giveBack().then(() => setMode(next), () => setMode(next))} />
        <Sending />
      </header>

      {told.value.map((each, index) => (
        <p class="notice bad" role="alert" key={index}>
          A label was not taken: {each.text}{" "}
          <button class="link" onClick={() => dismiss(index)}>
            dismiss
          </button>
        </p>
      ))}

      <div class="stage">
        {grid ? (
          <Grid
            grid={grid}
            wrong={wrong}
            toggle={(id) => {
              const next = new Set(wrong);
              if (!next.delete(id)) next.add(id);
              setWrong(next);
            }}
          />
        ) : on ? (
          <Shown on={on} light={light} />
        ) : (
          <NothingThere queue={queue} project={project} />
        )}
        {mode && on && !grid && (
          <p class="one-by-one quiet" role="status">
            {on.item.arm === "control" ? "Drawn at random: asked by itself, without a guess, because accuracy is measured on such items." : several ? "Not of the grid: which classes are there?" : "Not of the grid: which class is it?"}
          </p>
        )}
        <div class="flash" ref={flash} aria-live="polite" data-testid="flash" />
        {on && !grid && (
          <aside class={`beside ${whyOpen ? "open" : ""}`}>
            <div class="beside-buttons">
              <button aria-pressed={whyOpen} onClick={() => setWhyOpen(!whyOpen)} title="In words, where it comes from">
                {!many && <kbd>i</kbd>}
                <span>
                  Why<span class="hide-small"> this item</span>?
                </span>
              </button>
              <button aria-pressed={shown === "shown"} onClick={() => show(shown === "shown" ? "hidden" : "shown")} title="What the head takes items for">
                {!many && <kbd>p</kbd>}
                <span>
                  Predictions<span class="hide-small"> {shown === "shown" ? "shown" : "hidden"}</span>
                </span>
              </button>
              <button
                aria-pressed={beside}
                disabled={on.item.arm === "control"}
                onClick={() => setBeside(!beside)}
                title={on.item.arm === "control" ? "Not for items drawn at random: they are labeled without hints" : "The three labeled items most like it"}
              >
                {!many && <kbd>n</kbd>} Similar
              </button>
              {on.item.content.kind === "image" && (
                <button aria-pressed={lightOpen} onClick={() => setLightOpen(!lightOpen)} title="Brightness and contrast" aria-label="Brightness and contrast">
                  ◐
                </button>
              )}
            </div>
            {lightOpen && on.item.content.kind === "image" && <LightRoom light={light} change={setLight} />}
            {beside && on.item.arm !== "control" && <Neighbours key={on.item.id} on={on} />}
            {whyOpen && (
              <div class="why" data-testid="why">
                {inWords(on.item).map((sentence) => (
                  <p key={sentence}>{sentence}</p>
                ))}
                <p class="quiet mono">{on.item.key}</p>
              </div>
            )}
          </aside>
        )}
      </div>

      <footer class="answers">
        {grid && (
          <button class="primary send-grid" onClick={sendGrid} data-testid="send-grid">
            <kbd>Enter</kbd>
            {wrong.size === grid.items.length ? "All are wrong: show them one by one" : `${plural(grid.items.length - wrong.size, "item")} are ${grid.name}${wrong.size ? `, ${wrong.size} are not` : ""}`}
          </button>
        )}
        {many && !grid && (
          <div class="typing">
            <input
              ref={typing}
              value={typed}
              onInput={(event) => setTyped(event.currentTarget.value)}
              placeholder={several ? "Type a class, Enter marks the first; with nothing typed, Enter sends" : "Type a class, Enter takes the first"}
              aria-label="Class"
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
            />
          </div>
        )}
        {!grid && <div class={`classes ${many ? "many" : ""}`} role="group" aria-label="Classes" style={{ "--columns": String(columns) }}>
          {fitting.map((name, index) => (
            <button
              key={name}
              class={`class ${predicted(name) ? "predicted" : ""} ${marked.has(name) ? "marked" : ""} ${many && typed && index === 0 ? "first" : ""}`}
              disabled={!on}
              aria-pressed={several ? marked.has(name) : undefined}
              onClick={(event) => {
                if (event.detail) event.currentTarget.blur(); // by mouse: else Enter would press it again
                choose(name);
              }}
            >
              {!many && <kbd>{KEYS[index]}</kbd>}
              <span dir="auto">{name}</span>
              {prediction?.class === name && <small>{percent(prediction.probability, 0)}</small>}
              {several && predicted(name) && <small>guess</small>}
            </button>
          ))}
        </div>}
        {several && !grid && (
          <button class="primary send-grid" onClick={sendMarked} disabled={!on} data-testid="send-marked">
            <kbd>Enter</kbd> <span dir="auto">{marked.size ? said(project.classes.filter((name) => marked.has(name))) : `Nothing chosen: ${NOTHING}`}</span>
          </button>
        )}
        <div class="others">
          <button onClick={undo} disabled={done.current.length === 0}>
            <kbd>⌫</kbd> Undo
          </button>
          <button onClick={() => decide({ skip: "unsure" })} disabled={!on || grid !== null}>
            <kbd>{many ? "?" : "u"}</kbd> Unsure
          </button>
          <button onClick={() => decide({ skip: "broken" })} disabled={!on || grid !== null}>
            <kbd>{many ? "!" : "b"}</kbd> Broken
          </button>
          <GiveBack queue={queue} project={project} />
        </div>
      </footer>
    </div>
  );
}

function ModeChoice({ project, mode, setMode }: { project: Project; mode: Mode; setMode: (mode: Mode) => void }) {
  const several = project.label_kind === "multi";
  return (
    <select
      aria-label="One by one, or as a grid"
      title="A grid shows items that the head takes for one class: mark the wrong ones, confirm the rest"
      value={mode ? JSON.stringify(mode.grid) : ""}
      onChange={(event) => {
        const value = event.currentTarget.value;
        event.currentTarget.blur();
        setMode(value ? { grid: JSON.parse(value) as string | string[] | null } : null);
      }}
    >
      <option value="">One by one</option>
      <option value="null">{several ? "Grid: likeliest classes" : "Grid: likeliest class"}</option>
      {several && <option value="[]">Grid: {NOTHING}</option>}
      {project.classes.map((name) => (
        <option key={name} value={JSON.stringify(several ? [name] : name)}>
          Grid: {several && "just "}
          {name}
        </option>
      ))}
    </select>
  );
}

function GiveBack({ queue, project }: { queue: Queue; project: Project }) {
  const stop = async () => {
    await flush();
    await queue.giveBack().catch(() => {});
    location.hash = mayRead() ? href(project.id) : href(null);
  };
  return (
    <button class="stop" onClick={() => void stop()} title="Others may have the items you have not labeled">
      Stop
    </button>
  );
}

function Shown({ on, light }: { on: OnDesk; light: Light }) {
  const { Full } = viewerOf(on.item.content);
  const full = <Full content={on.item.content} name={on.item.key} source={on.source} />;
  return (
    <div class="item" data-testid="item" data-item={on.item.id} key={on.item.id}>
      {on.item.content.kind === "image" ? <Zoom light={light}>{full}</Zoom> : full}
    </div>
  );
}

function RoundProgress({ used, size, budget }: { used: number; size: number; budget: number | null }) {
  const within = used % size;
  return (
    <>
      <Progress value={within / size} label="Progress of this round" />
      <span class="quiet hide-small">
        {within} of {size} in this round{budget !== null && `, ${plural(Math.max(0, budget - used), "label")} left in the budget`}
      </span>
    </>
  );
}

function Sending() {
  if (offline.value) {
    return (
      <span class="sending bad" role="status" data-testid="sending">
        Offline: {plural(waiting.value, "label")} kept here, sent when the service answers
      </span>
    );
  }
  return (
    <span class="sending quiet" data-testid="sending">
      {waiting.value ? `sending ${waiting.value}` : "all saved"}
    </span>
  );
}

function NothingThere({ queue, project }: { queue: Queue; project: Project }) {
  if (queue.loading) return <p class="quiet">…</p>;
  if (queue.error && !queue.reason) return <Empty title="No more items right now">{queue.error.message} It is asked again by itself.</Empty>;
  return (
    <Empty title="Nothing to label right now">
      {REASONS[queue.reason ?? ""] ?? "More items are on their way."} {mayRead() && <a href={href(project.id)}>Back to the dashboard</a>}
    </Empty>
  );
}
