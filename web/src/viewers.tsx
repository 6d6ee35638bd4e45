// How an item is shown, by its kind. A viewer of another kind is one entry in VIEWERS.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import type { Content } from "./api";

export interface Viewer {
  /** The whole item, as large as there is room; `source` is what `preload` gave, if it did. */
  Full: (props: { content: Content; name: string; source?: string | undefined }) => JSX.Element;
  /** A tile of the gallery. */
  Tile: (props: { content: Content; name: string }) => JSX.Element;
  /** Fetches the item ahead, so that it is there at once. Gives what `Full` takes as `source`. */
  preload: (content: Content) => Promise<string>;
}

const LARGEST = 1600; // pixels; what a screen can show, and cameras make more
const SMALL = 96; // pixels; what is smaller is shown as the squares it is

const sized = (content: Content): string => `${content.url}&size=${LARGEST}`;

function crisp(event: JSX.TargetedEvent<HTMLImageElement>): void {
  const image = event.currentTarget;
  image.classList.toggle("crisp", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
}

/** Why there is nothing to see, in the service's words where it has some. */
function Missing({ what, source }: { what: string; source: string }) {
  const [reason, setReason] = useState("");
  useEffect(() => {
    let over = false;
    void whyNot(source).then((found) => over || setReason(found));
    return () => {
      over = true;
    };
  }, [source]);
  return (
    <span class="missing">
      {what} cannot be shown. {reason}
    </span>
  );
}

async function whyNot(source: string): Promise<string> {
  try {
    const response = await fetch(source);
    return response.ok ? "" : ((await response.json()).detail ?? "");
  } catch {
    return "";
  }
}

function Picture({ source, name, lazy }: { source: string; name: string; lazy?: boolean }) {
  const [failed, setFailed] = useState(false);
  useEffect(() => setFailed(false), [source]);
  if (failed) return <Missing what="This picture" source={source} />;
  return <img src={source} alt={name} draggable={false} decoding={lazy ? "async" : "sync"} onLoad={crisp} onError={() => setFailed(true)} />;
}

const image: Viewer = {
  Full: ({ content, name, source }) => <Picture source={source ?? sized(content)} name={name} />,
  Tile: ({ content, name }) => <Picture source={content.preview_url} name={name} lazy />,
  preload: async (content) => {
    const response = await fetch(sized(content));
    if (!response.ok) throw new Error("not shown");
    const url = URL.createObjectURL(await response.blob());
    const ahead = new Image();
    ahead.src = url;
    await ahead.decode().catch(() => {});
    return url;
  },
};

/** A text as pieces, every second one of which is marked. Ranges count code points, strings in JavaScript do not. */
export function pieces(text: string, marks: [number, number][]): string[] {
  const points = [...text];
  const cuts = marks.flatMap(([start, end]) => [start, end]);
  return [0, ...cuts].map((start, place) => points.slice(start, cuts[place] ?? points.length).join(""));
}

/** Nothing of it is markup: each piece is a text of its own. */
function Marked({ text, marks }: { text: string; marks: [number, number][] }) {
  if (marks.length === 0) return <p dir="auto">{text}</p>;
  return (
    <p dir="auto">
      {pieces(text, marks).map((piece, place) =>
        place % 2 ? (
          <mark key={place} title="hard to guess for the pretext model">
            {piece}
          </mark>
        ) : (
          piece
        ),
      )}
    </p>
  );
}

function LongText({ content }: { content: Content }) {
  const [text, setText] = useState<string | null>("…");
  useEffect(() => {
    let over = false;
    fetch(content.url)
      .then(async (response) => (response.ok ? response.text() : null))
      .catch(() => null)
      .then((found) => over || setText(found));
    return () => {
      over = true;
    };
  }, [content.url]);
  return text === null ? <Missing what="This text" source={content.url} /> : <Marked text={text} marks={content.marks} />;
}

const text: Viewer = {
  Full: ({ content }) => (
    <div class="text" tabIndex={0}>
      {content.text === null ? <LongText key={content.url} content={content} /> : <Marked text={content.text} marks={content.marks} />}
    </div>
  ),
  Tile: ({ content }) => (
    <span class="text" dir="auto">
      {content.text?.slice(0, 240) ?? "a long text"}
    </span>
  ),
  preload: async () => "",
};

/** A recording: a picture of its sound, and a player. */
const audio: Viewer = {
  Full: ({ content, name, source }) => (
    <figure class="sound">
      <Picture source={source ?? sized(content)} name={name} />
      <audio key={content.url} controls preload="auto" src={content.url} aria-label={name} />
    </figure>
  ),
  Tile: ({ content, name }) => <Picture source={content.preview_url} name={name} lazy />,
  preload: image.preload,
};

/** A player; what the browser cannot play it may show as a picture (GIF), else a frame above a strip of others is shown. */
function Player({ content, name }: { content: Content; name: string }) {
  const [shown, setShown] = useState<"film" | "animation" | "strip">("film");
  if (shown === "strip") return <Picture source={sized(content)} name={name} />;
  if (shown === "animation") return <img src={content.url} alt={name} draggable={false} onLoad={crisp} onError={() => setShown("strip")} />;
  const moves = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  return <video controls loop muted playsInline autoPlay={moves} src={content.url} aria-label={name} onError={() => setShown("animation")} />;
}

const video: Viewer = {
  Full: ({ content, name }) => <Player key={content.url} content={content} name={name} />,
  Tile: audio.Tile,
  preload: async () => "",
};

const halvesOf = (content: Content): Content[] => (content.parts ?? []).map((part) => ({ ...part, marks: [], parts: null }));

/** The half that is fetched ahead: texts come with the answer. */
const aheadOf = (content: Content): Content | undefined => halvesOf(content).find((half) => half.kind !== "text");

/** Both halves side by side, each as its kind is shown. */
const pair: Viewer = {
  Full: ({ content, name, source }) => (
    <div class="pair">
      {halvesOf(content).map((half) => {
        const { Full } = viewerOf(half);
        return <Full key={half.url} content={half} name={name} source={half.url === aheadOf(content)?.url ? source : undefined} />;
      })}
    </div>
  ),
  Tile: ({ content, name }) => (
    <span class="pair">
      {halvesOf(content).map((half) => {
        const { Tile } = viewerOf(half);
        return <Tile key={half.url} content={half} name={name} />;
      })}
    </span>
  ),
  preload: async (content) => {
    const half = aheadOf(content);
    return half === undefined ? "" : viewerOf(half).preload(half);
  },
};

const VIEWERS: Record<string, Viewer> = { image, text, audio, graph: image, video, pair };

export const viewerOf = (content: Content): Viewer => VIEWERS[content.kind ?? "image"] ?? text;
