// Closer looks at a picture: wheel, two fingers or a double click; drag to move. Brighter, with more contrast.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

const MOST = 12;
const CLOSE = 3; // a double click

interface View {
  scale: number;
  x: number;
  y: number;
}

const WHOLE: View = { scale: 1, x: 0, y: 0 };

export interface Light {
  brightness: number;
  contrast: number;
}

export const PLAIN: Light = { brightness: 1, contrast: 1 };

/** Scaled about a point of the frame, and never moved out of it. */
function scaled(view: View, by: number, at: { x: number; y: number }, frame: DOMRect): View {
  const scale = Math.max(1, Math.min(MOST, view.scale * by));
  const factor = scale / view.scale;
  const [x, y] = [at.x - frame.left - frame.width / 2, at.y - frame.top - frame.height / 2];
  return within({ scale, x: x - factor * (x - view.x), y: y - factor * (y - view.y) }, frame);
}

function within({ scale, x, y }: View, frame: DOMRect): View {
  const [mostX, mostY] = [(frame.width * (scale - 1)) / 2, (frame.height * (scale - 1)) / 2];
  return { scale, x: Math.max(-mostX, Math.min(mostX, x)), y: Math.max(-mostY, Math.min(mostY, y)) };
}

export function Zoom({ light, children }: { light: Light; children: ComponentChildren }) {
  const [view, setView] = useState(WHOLE);
  const frame = useRef<HTMLDivElement>(null);
  const fingers = useRef(new Map<number, { x: number; y: number }>());
  const rect = () => (frame.current as HTMLDivElement).getBoundingClientRect();

  useEffect(() => {
    const place = frame.current as HTMLDivElement;
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      setView((before) => scaled(before, Math.exp(-event.deltaY / 300), { x: event.clientX, y: event.clientY }, rect()));
    };
    const escape = (event: KeyboardEvent) => event.key === "Escape" && setView(WHOLE);
    place.addEventListener("wheel", wheel, { passive: false });
    addEventListener("keydown", escape);
    return () => {
      place.removeEventListener("wheel", wheel);
      removeEventListener("keydown", escape);
    };
  }, []);

  const down = (event: PointerEvent) => {
    fingers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
  };
  const up = (event: PointerEvent) => void fingers.current.delete(event.pointerId);
  const move = (event: PointerEvent) => {
    const before = fingers.current.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...fingers.current].find(([id]) => id !== event.pointerId)?.[1];
    fingers.current.set(event.pointerId, now);
    if (other) {
      const distance = (from: { x: number; y: number }) => Math.max(1, Math.hypot(from.x - other.x, from.y - other.y));
      setView((view) => scaled(view, distance(now) / distance(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 }, rect()));
    } else setView((view) => within({ ...view, x: view.x + now.x - before.x, y: view.y + now.y - before.y }, rect()));
  };
  const twice = (event: MouseEvent) => setView((view) => (view.scale > 1 ? WHOLE : scaled(view, CLOSE, { x: event.clientX, y: event.clientY }, rect())));
  return (
    <div ref={frame} class={`zoom ${view.scale > 1 ? "close" : ""}`} onPointerDown={down} onPointerUp={up} onPointerCancel={up} onPointerMove={move} onDblClick={twice} data-testid="zoom" data-scale={view.scale}>
      <div style={{ transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})`, filter: `brightness(${light.brightness}) contrast(${light.contrast})` }}>{children}</div>
    </div>
  );
}

export function LightRoom({ light, change }: { light: Light; change: (light: Light) => void }) {
  return (
    <div class="why light">
      {(["brightness", "contrast"] as const).map((name) => (
        <label key={name}>
          {name}
          <input type="range" min="0.2" max="4" step="0.05" value={light[name]} onInput={(event) => change({ ...light, [name]: Number(event.currentTarget.value) })} />
        </label>
      ))}
      <button class="link" onClick={() => change(PLAIN)}>
        as it is
      </button>
    </div>
  );
}
