// Every setting of a project with its help, as the API describes them.

import { useEffect, useState } from "preact/hooks";

import { get, send, type Project } from "../api";
import { words } from "../format";

interface Schema {
  type?: string;
  description?: string;
  default?: unknown;
  anyOf?: Schema[];
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  $ref?: string;
}

interface PlugIn {
  kind: string;
  name: string;
}

const NOT_HERE = new Set(["name", "classes", "state", "modality", "pretext_from"]);
const PLUG_INS: Record<string, string> = { strategy: "strategy", cold_start: "strategy", head: "head", pretext_task: "pretext_task", backbone: "backbone" };
const GROUPS: [string, (name: string) => boolean][] = [
  ["Picking", (name) => ["strategy", "cold_start", "round_size", "control_fraction", "collapse_duplicates", "budget", "seed"].includes(name)],
  ["Labeling", (name) => /overlap|gold|annotator|reservation/.test(name)],
  ["Head", (name) => /^head$|^retrain/.test(name)],
  ["Pretraining", () => true],
];

export function SettingsForm({ project, onChange }: { project: Project; onChange: () => void }) {
  const [schemas, setSchemas] = useState<Record<string, Schema> | null>(null);
  const [catalogue, setCatalogue] = useState<PlugIn[]>([]);
  const [given, setGiven] = useState<Record<string, string>>({}); // as typed; what is not here is as it was
  const [refused, setRefused] = useState<Record<string, string>>({});
  const [said, setSaid] = useState<string | null>(null);
  useEffect(() => {
    get<{ components: { schemas: Record<string, { properties: Record<string, Schema> }> } }>("/openapi.json").then(
      (found) => setSchemas(found.components.schemas.ProjectChange?.properties ?? {}),
      (error: Error) => setRefused({ "": error.message }),
    );
    void get<{ items: PlugIn[] }>("/catalogue").then((found) => setCatalogue(found.items), () => {});
  }, []);
  if (!schemas) return refused[""] ? <p class="bad">{refused[""]}</p> : <div aria-busy="true" />;
  const now = project as unknown as Record<string, unknown>;
  const names = Object.keys(schemas).filter((name) => !NOT_HERE.has(name) && name in now);
  const save = async () => {
    setSaid(null);
    const changes: Record<string, unknown> = {};
    const wrong: Record<string, string> = {};
    for (const [name, text] of Object.entries(given)) {
      try {
        changes[name] = valueOf(text, schemas[name] as Schema, name in PLUG_INS && name !== "backbone");
      } catch {
        wrong[name] = "This is neither a name nor JSON.";
      }
    }
    setRefused(wrong);
    if (Object.keys(wrong).length || !Object.keys(changes).length) return;
    try {
      await send<Project>("PATCH", `/projects/${project.id}`, changes);
      setGiven({});
      setSaid("Saved. Running jobs finish with the settings of before.");
      onChange();
    } catch (error) {
      const fields = (error as { fields?: { field: string; message: string }[] }).fields ?? [];
      const by = Object.fromEntries(fields.map(({ field, message }) => [field.split(/[.[]/)[0] as string, message]));
      setRefused(Object.keys(by).some((name) => names.includes(name)) ? by : { "": (error as Error).message });
    }
  };
  const groups = GROUPS.map(([title], index) => ({ title, names: names.filter((name) => GROUPS.findIndex(([, has]) => has(name)) === index) }));
  return (
    <form
      class="stack settings"
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      {groups.map((group) => (
        <fieldset key={group.title}>
          <legend>{group.title}</legend>
          {group.names.map((name) => {
            const schema = schemas[name] as Schema;
            const value = given[name] ?? textOf(now[name]);
            const set = (text: string) => setGiven(text === textOf(now[name]) ? without(given, name) : { ...given, [name]: text });
            return (
              <div key={name} class={name in given ? "setting changed" : "setting"}>
                <label for={`setting-${name}`}>{words(name.replace(/_s$/, ", in seconds"))}</label>
                <Control name={name} schema={schema} value={value} set={set} options={name in PLUG_INS ? catalogue.filter((one) => one.kind === PLUG_INS[name]) : undefined} />
                <p class="quiet" id={`help-${name}`}>
                  {schema.description?.replaceAll("`", "")}
                </p>
                {refused[name] && <p class="bad" role="alert">{refused[name]}</p>}
              </div>
            );
          })}
        </fieldset>
      ))}
      <p class="row">
        <button class="primary" disabled={!Object.keys(given).length}>
          Save
        </button>
        {Object.keys(given).length > 0 && (
          <button type="button" onClick={() => (setGiven({}), setRefused({}))}>
            As before
          </button>
        )}
      </p>
      {said && <p role="status">{said}</p>}
      {refused[""] && <p class="bad" role="alert">{refused[""]}</p>}
    </form>
  );
}

function Control({ name, schema, value, set, options }: { name: string; schema: Schema; value: string; set: (text: string) => void; options: PlugIn[] | undefined }) {
  const more = { id: `setting-${name}`, "aria-describedby": `help-${name}` };
  const { type, choices, open } = kindOf(schema);
  if (type === "boolean") {
    return (
      <select {...more} value={value} onChange={(event) => set(event.currentTarget.value)}>
        <option value="true">yes</option>
        <option value="false">no</option>
      </select>
    );
  }
  if (choices) {
    return (
      <select {...more} value={value} onChange={(event) => set(event.currentTarget.value)}>
        {open && <option value="">default</option>}
        {choices.map((choice) => (
          <option key={String(choice)} value={String(choice)}>
            {String(choice)}
          </option>
        ))}
      </select>
    );
  }
  const number = type === "integer" || type === "number";
  return (
    <>
      <input {...more} inputMode={number ? "decimal" : undefined} class={number ? "" : "mono"} placeholder={open ? "default" : ""} list={options ? `options-${name}` : undefined} value={value} onInput={(event) => set(event.currentTarget.value)} />
      {options && (
        <datalist id={`options-${name}`}>
          {options.map((option) => (
            <option key={option.name} value={option.name} />
          ))}
        </datalist>
      )}
    </>
  );
}

function kindOf(schema: Schema): { type: string; choices?: unknown[] | undefined; open: boolean } {
  const each = schema.anyOf ?? [schema];
  const named = each.find((one) => one.type !== "null") ?? schema;
  return { type: named.type ?? "object", choices: named.enum, open: each.some((one) => one.type === "null") };
}

/** A plug-in without parameters by its name; what is no text as JSON. */
function textOf(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "object") {
    const { name, params } = value as { name?: string; params?: object };
    if (name && params && Object.keys(params).length === 0) return name;
    return JSON.stringify(value);
  }
  return String(value);
}

function valueOf(text: string, schema: Schema, plugIn: boolean): unknown {
  const { type, open } = kindOf(schema);
  const trimmed = text.trim();
  if (trimmed === "" && open) return null;
  if (plugIn) return trimmed.startsWith("{") ? JSON.parse(trimmed) : trimmed;
  if (type === "string") return trimmed;
  if (type === "integer" || type === "number") return trimmed !== "" && Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
  return JSON.parse(trimmed);
}

const without = (given: Record<string, string>, name: string) => Object.fromEntries(Object.entries(given).filter(([one]) => one !== name));
