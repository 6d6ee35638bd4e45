// The labels as a file.

import { useState } from "preact/hooks";

const FORMATS = { CSV: "text/csv", NDJSON: "application/x-ndjson", Parquet: "application/vnd.apache.parquet" };

export function Export({ project }: { project: string }) {
  const [refused, setRefused] = useState<string | null>(null);
  const save = async (name: string, type: string) => {
    try {
      const answer = await fetch(`/projects/${project}/labels`, { headers: { Accept: type } });
      if (!answer.ok) throw new Error("The labels could not be fetched.");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = `labels-${project}.${name.toLowerCase()}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      setRefused(null);
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  return (
    <p class="row more">
      Export the labels:
      {Object.entries(FORMATS).map(([name, type]) => (
        <button key={name} class="link" onClick={() => void save(name, type)}>
          {name}
        </button>
      ))}
      {refused && <span class="bad">{refused}</span>}
    </p>
  );
}
