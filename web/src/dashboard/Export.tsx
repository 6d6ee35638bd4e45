// The labels as a file, in every format that the service writes.

import { useState } from "preact/hooks";

import { ask, withQuery } from "../api";

const TABLES = { CSV: "csv", NDJSON: "ndjson", Parquet: "parquet" };
const TOOLS = { COCO: "coco", "Pascal VOC": "voc", YOLO: "yolo", CVAT: "cvat", "Label Studio": "label-studio", FiftyOne: "fiftyone", "folders of images": "imagefolder" };

export function Export({ project }: { project: string }) {
  const [busy, setBusy] = useState<string | null>(null);
  const [said, say] = useState<{ text: string; bad: boolean } | null>(null);
  const save = async (format: string) => {
    setBusy(format);
    say(null);
    try {
      const answer = await ask("GET", withQuery(`/projects/${project}/labels`, { format }));
      const named = answer.headers.get("Content-Disposition")?.match(/filename="([^"]+)"/)?.[1];
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = named ?? `labels-${project}.${format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      const left = answer.headers.get("Shortlist-Left-Out");
      say({ text: `${link.download} is saved.${left ? ` Left out: ${left}` : ""}`, bad: false });
    } catch (error) {
      say({ text: (error as Error).message, bad: true });
    } finally {
      setBusy(null);
    }
  };
  const links = (formats: Record<string, string>) =>
    Object.entries(formats).map(([name, format]) => (
      <button key={format} class="link" disabled={busy !== null} onClick={() => void save(format)}>
        {busy === format ? `${name} …` : name}
      </button>
    ));
  return (
    <div class="export more">
      <p class="row">
        <span>Export all labels:</span> {links(TABLES)}
      </p>
      <p class="row">
        <span>Decided items, for tools:</span> {links(TOOLS)}
      </p>
      {said && (
        <p class={said.bad ? "bad" : "quiet"} role="status">
          {said.text}
        </p>
      )}
    </div>
  );
}
