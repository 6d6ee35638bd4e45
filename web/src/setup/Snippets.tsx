// What to paste into a terminal or a program. The key stands nowhere: it is yours.

import { useState } from "preact/hooks";

import type { Project } from "../api";

function snippets(project: Project): Record<string, string> {
  const at = `${location.origin}/projects/${project.id}`;
  const label = project.classes[0] ?? "CLASS";
  const quoted = (value: unknown) => `'${JSON.stringify(value).replaceAll("'", "'\\''")}'`;
  return {
    curl: `export KEY=sl_…   # shortlist keys add NAME
curl -s ${at}/next-batch -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\
  -d ${quoted({ annotator: "ann", size: 10 })}
curl -s ${at}/labels -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\
  -d ${quoted({ labels: [{ item: "ITEM", class: label, annotator: "ann" }] })}
curl -s ${at}/labels -H "Authorization: Bearer $KEY" -H 'Accept: text/csv' > labels.csv`,
    Python: `import os
from shortlist_client import Shortlist

with Shortlist(${JSON.stringify(location.origin)}, os.environ["KEY"]) as client:
    for item in client.project(${JSON.stringify(project.id)}).annotate("ann"):
        picture = item.read()
        item.label(...)  # one of ${JSON.stringify(project.classes.slice(0, 5))}`,
    "Label Studio": `shortlist connect label-studio --url \$LABEL_STUDIO_URL --token … --project 1 --into ${project.id}`,
  };
}

export function Snippets({ project }: { project: Project }) {
  const [copied, setCopied] = useState<string | null>(null);
  const copy = (name: string, text: string) =>
    void navigator.clipboard
      ?.writeText(text)
      .then(() => setCopied(name))
      .catch(() => {});
  return (
    <div class="stack">
      {Object.entries(snippets(project)).map(([name, text]) => (
        <figure key={name} class="snippet">
          <figcaption>
            <b>{name}</b>
            <button class="link" onClick={() => copy(name, text)}>
              {copied === name ? "copied" : "copy"}
            </button>
          </figcaption>
          <pre tabIndex={0} aria-label={`${name} snippet`}>{text}</pre>
        </figure>
      ))}
    </div>
  );
}
