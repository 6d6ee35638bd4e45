// Something of the API that is kept up to date: told by the project's event stream, asked by itself where there is none.

import { useEffect, useRef, useState } from "preact/hooks";

const POLL_MS = 2000;
const TOLD_POLL_MS = 30_000; // beside a stream: what no event tells, such as the label rate
const GATHER_MS = 200; // changes that come together are one

const EVENTS = ["project", "items", "labels", "round", "score_run", "ranking", "head", "job", "deleted"];

/** Calls `tick` now, at each change of the project, and now and then. A hidden tab does nothing. */
function follow(project: string, tick: () => void): () => void {
  let source: EventSource | null = null;
  let gathering: ReturnType<typeof setTimeout> | undefined;
  let told = false;
  let last = 0;
  const act = () => {
    last = Date.now();
    tick();
  };
  const soon = () => {
    told = true;
    gathering ??= setTimeout(() => {
      gathering = undefined;
      act();
    }, GATHER_MS);
  };
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(`/projects/${project}/events`);
    for (const name of EVENTS) source.addEventListener(name, soon);
    source.onerror = () => {
      told = false;
      if (source?.readyState === EventSource.CLOSED) close(); // refused: polling goes on
    };
  };
  const close = () => {
    source?.close();
    source = null;
    told = false;
  };
  const timer = setInterval(() => {
    if (document.hidden) return close(); // a stream holds one of the few connections a browser has to a host
    open();
    if (Date.now() - last >= (told ? TOLD_POLL_MS : POLL_MS)) act();
  }, POLL_MS);
  open();
  act();
  return () => {
    clearInterval(timer);
    clearTimeout(gathering);
    close();
  };
}

export interface Live<T> {
  data: T | null;
  error: Error | null;
  refresh: () => void;
}

/** `load` may tell, the first time, what it has before the rest. */
export function useLive<T>(project: string, load: (told: (part: T) => void) => Promise<T>): Live<T> {
  const [state, setState] = useState<{ project: string; data: T | null; error: Error | null }>({ project, data: null, error: null });
  const again = useRef(() => {});
  useEffect(() => {
    let [begun, drawn, over] = [0, 0, false]; // loads overlap, and what a later one brought is newer
    const tick = async () => {
      const number = ++begun;
      try {
        const data = await load((part) => over || setState((before) => (before.project === project && before.data ? before : { project, data: part, error: null })));
        if (over || number < drawn) return;
        drawn = number;
        setState({ project, data, error: null });
      } catch (error) {
        if (!over) setState((before) => ({ project, data: before.project === project ? before.data : null, error: error as Error }));
      }
    };
    again.current = tick;
    const stop = follow(project, tick);
    return () => {
      over = true;
      stop();
    };
  }, [project]);
  const mine = state.project === project;
  return { data: mine ? state.data : null, error: mine ? state.error : null, refresh: () => again.current() };
}
