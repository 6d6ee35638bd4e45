// A project's set-up: its classes, what is imported, annotators, settings, webhooks, and how programs reach it.

import { useEffect, useState } from "preact/hooks";

import { get, type Project } from "../api";
import { Export } from "../dashboard/Export";
import { Invite } from "../dashboard/Invite";
import { Card } from "../parts";
import { Classes } from "./Classes";
import { SettingsForm } from "./SettingsForm";
import { Snippets } from "./Snippets";
import { UploadCard } from "./Upload";
import { Webhooks } from "./Webhooks";

export function Setup({ project: known }: { project: Project }) {
  const [project, setProject] = useState(known);
  useEffect(() => setProject(known), [known]);
  const { id } = project;
  const load = () => void get<Project>(`/projects/${id}`).then(setProject, () => {}); // what is shown was saved: it stays
  return (
    <div class="dashboard setup">
      <Card title="Classes" note="each change says first what it does">
        <Classes project={id} onChange={load} />
      </Card>
      <div class="stack">
        <Card title="More items">
          <UploadCard project={id} />
        </Card>
        <Card title="Annotators" note="a link signs somebody in, for this project">
          <Invite project={id} />
        </Card>
        <Card title="Labels">
          <Export project={id} />
        </Card>
      </div>
      <Card title="Settings" wide>
        <SettingsForm project={project} onChange={load} />
      </Card>
      <Card title="Webhooks" wide>
        <Webhooks project={id} />
      </Card>
      <Card title="From your program" wide>
        <Snippets project={project} />
      </Card>
    </div>
  );
}
