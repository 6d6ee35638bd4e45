import { useState } from "preact/hooks";

import { get, Refused, send, type AnnotatorReport, type ClassConfusion, type Gate, type Job, type Metrics, type Page, type PretextModel, type Project, type Round, type Scores, type Share } from "../api";
import { figureOf } from "../classes";
import { ago, clock, count, duration, figure, percent, plural, words } from "../format";
import { useLive } from "../live";
import { Bars, Card, Empty, Progress, Table } from "../parts";
import { href } from "../route";
import { mayLabel, mayManage } from "../session";
import { UploadCard } from "../setup/Upload";
import { Curve } from "./Curve";
import { Export } from "./Export";
import { Invite } from "./Invite";
import { nextStep } from "./next";

const ROUNDS = 30; // the newest that are shown
const JOBS = 12;
const COUNT_MS = 30_000; // annotators are counted anew after so long, whatever changed

interface Everything {
  project: Project;
  metrics: Metrics;
  rest: Rest | null; // not there yet
}

interface Rest {
  rounds: Round[];
  measured: Round | null; // the newest measured round, with its confusion matrix
  jobs: Job[];
  annotators: Page<AnnotatorReport>;
  model: PretextModel | null;
  scores: Scores | null;
}

let counted: { of: string; page: Page<AnnotatorReport> } | null = null;

/** Counting takes longer than the rest: after a change of what is counted, and now and then. */
async function annotatorsOf(id: string, metrics: Metrics, jobs: Job[]): Promise<Page<AnnotatorReport>> {
  const of = [id, metrics.labels_used, jobs[0]?.id, Math.floor(Date.now() / COUNT_MS)].join();
  if (counted?.of !== of) counted = { of, page: await get<Page<AnnotatorReport>>(`/projects/${id}/annotators`) };
  return counted.page;
}

async function load(id: string, told: (part: Everything) => void): Promise<Everything> {
  const at = `/projects/${id}`;
  const first = Promise.all([get<Project>(at), get<Metrics>(`${at}/metrics`)]).then(([project, metrics]) => ({ project, metrics }));
  const [top, rest] = await Promise.all([first, loadRest(id, first), first.then((found) => told({ ...found, rest: null }))]);
  return { ...top, rest };
}

async function loadRest(id: string, first: Promise<{ metrics: Metrics }>): Promise<Rest> {
  const at = `/projects/${id}`;
  const [{ metrics }, rounds, jobs, models] = await Promise.all([
    first,
    get<Page<Round>>(`${at}/rounds`, { newest_first: true, brief: true, limit: ROUNDS }),
    get<Page<Job>>("/jobs", { project: id, limit: JOBS }),
    get<Page<PretextModel>>(`${at}/pretext-models`, { limit: 1 }),
  ]);
  const newest = rounds.items.find((round) => round.state === "measured");
  const [annotators, measured, scores] = await Promise.all([
    annotatorsOf(id, metrics, jobs.items),
    newest ? get<Round>(`${at}/rounds/${newest.number}`) : null,
    get<Scores>(`${at}/scores`).catch((error) => {
      if (error instanceof Refused) return null; // no pretext model has scored the pool yet
      throw error;
    }),
  ]);
  return { rounds: rounds.items, measured, jobs: jobs.items, annotators, model: models.items[0] ?? null, scores };
}

export function Dashboard({ id }: { id: string }) {
  const { data, error, refresh } = useLive<Everything>(id, (told) => load(id, told));
  if (!data) return error ? <p class="notice bad">{error.message}</p> : <div class="dashboard loading" aria-busy="true" />;
  const { project, metrics, rest } = data;
  return (
    <div class="dashboard" aria-busy={rest === null}>
      {error && <p class="notice bad">{error.message} What you see is as it was before.</p>}
      <Next project={project} metrics={metrics} onChange={refresh} />
      <Figures metrics={metrics} />
      {rest && <Cards project={project} metrics={metrics} rest={rest} refresh={refresh} />}
    </div>
  );
}

function Cards({ project, metrics, rest, refresh }: { project: Project; metrics: Metrics; rest: Rest; refresh: () => void }) {
  const { rounds, measured, jobs, annotators, model, scores } = rest;
  return (
    <>
      <Card title="Learning curve" note={metrics.random_selection?.accuracy ? undefined : metrics.random_selection?.text} wide>
        {metrics.learning_curve.length ? (
          <Curve metrics={metrics} random={rounds.find((round) => round.state === "measured")?.metrics?.random_curve ?? []} />
        ) : (
          <Empty title="No curve yet">It begins when the first round of {metrics.round_size} labels is in and measured.</Empty>
        )}
        <Sentences metrics={metrics} />
      </Card>
      <Card title="Class balance" note={metrics.agreement ? agreementOf(metrics) : undefined}>
        <Balance metrics={metrics} project={project.id} />
        {mayManage() && (
          <p class="more">
            <a href={href(project.id, "setup")}>Rename, merge, add or remove classes</a>
          </p>
        )}
      </Card>
      <Card title="Pretext model" note={model ? `version ${model.version}, ${words(model.task.name as string)}, ${model.backbone}` : undefined}>
        <Pretext model={model} metrics={metrics} onChange={refresh} project={project} />
      </Card>
      <Card title="Pretext losses" note={scores ? `score run ${scores.score_run}, ${count(scores.items)} items` : undefined}>
        {scores?.histogram ? <Losses histogram={scores.histogram} project={project.id} /> : <Empty title="No pretext losses yet">They come when a pretext model has scored the pool.</Empty>}
      </Card>
      <Card title="Where the head errs" tall note={measured?.metrics ? `round ${measured.number}, ${count(measured.metrics.items ?? 0)} ${measured.metrics.measured_on ?? ""} items` : undefined}>
        <Confusion round={measured} project={project} />
        {measured && (
          <p class="more">
            <a href={href(project.id, "gallery", { show: "suspects" })}>Labels that the head contradicts</a>
          </p>
        )}
      </Card>
      <Card title="Is the head as sure as it is right?" note={measured?.metrics?.ece == null ? undefined : `calibration error (ECE) ${percent(measured.metrics.ece)}`}>
        <Reliability round={measured} />
      </Card>
      <Card title="Set aside" note="not in the ranking, or worth a look" wide>
        <Aside project={project.id} metrics={metrics} />
      </Card>
      <Card title="Rounds" wide>
        <Rounds rounds={rounds} project={project.id} />
      </Card>
      <Card title="Annotators" wide>
        <Annotators page={annotators} project={project.id} />
        {mayManage() && <Invite project={project.id} />}
        {metrics.labels_used > 0 && <Export project={project.id} />}
      </Card>
      <Card title="Jobs" wide>
        <Jobs jobs={jobs} onChange={refresh} />
      </Card>
    </>
  );
}

function Next({ project, metrics, onChange }: { project: Project; metrics: Metrics; onChange: () => void }) {
  const step = nextStep(project, metrics);
  const [refused, setRefused] = useState<string | null>(null);
  const act = async (method: "POST" | "PATCH", path: string, body: unknown) => {
    try {
      await send(method, path, body);
      setRefused(null);
      onChange();
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  const at = `/projects/${project.id}`;
  return (
    <section class={`next ${step.kind}`} aria-label="What to do next" data-testid="next">
      <div>
        <h1>{step.sentence}</h1>
        <p>{step.why}</p>
        {refused && <p class="bad">{refused}</p>}
        {step.kind === "import" && mayManage() && (
          <>
            <UploadCard project={project.id} />
            <ImportForm onImport={(uri) => act("POST", `${at}/sources`, { uri, split: "pool" })} />
          </>
        )}
      </div>
      {step.kind === "paused" && mayManage() && <button onClick={() => void act("PATCH", at, { state: "active" })}>Resume</button>}
      {step.kind === "pretrain" && mayManage() && <button onClick={() => void act("POST", `${at}/pretrain`, {})}>Pretrain</button>}
      {(step.kind === "label" || step.kind === "pretrain") && mayLabel() && (
        <a class="button primary" href={href(project.id, "desk")}>
          Label
        </a>
      )}
    </section>
  );
}

function ImportForm({ onImport }: { onImport: (uri: string) => void }) {
  const [uri, setUri] = useState("");
  return (
    <form
      class="row"
      onSubmit={(event) => {
        event.preventDefault();
        onImport(uri.trim());
      }}
    >
      <input aria-label="Folder, table or bucket" placeholder="/data/photographs" value={uri} onInput={(event) => setUri(event.currentTarget.value)} required />
      <button class="primary">Import</button>
    </form>
  );
}

function Figures({ metrics }: { metrics: Metrics }) {
  const newest = metrics.learning_curve.at(-1);
  const figure = figureOf(newest);
  const aside = Object.entries(metrics.items).filter(([state, number]) => !["available", "done"].includes(state) && number > 0);
  const rate = metrics.label_rate;
  return (
    <section class="figures" aria-label="Key figures">
      <Figure value={count(metrics.labels_used)} what={metrics.budget === null ? "labels" : `of ${count(metrics.budget)} labels`} more={metrics.budget !== null && <Progress value={metrics.labels_used / metrics.budget} label="Part of the budget that is used" />} />
      <Figure value={percent(figure.value)} what={newest ? `${figure.name} (${percent(figure.low)} – ${percent(figure.high)})` : `${figure.name}: no head yet`} />
      <Figure value={`${metrics.round_labels} / ${metrics.round_size}`} what={`labels in round ${metrics.round}`} more={<Progress value={metrics.round_labels / metrics.round_size} label="Progress of this round" />} />
      <Figure value={count(metrics.pool_items)} what="items in the pool" note={[`${count(metrics.items.available ?? 0)} left`, ...aside.map(([state, number]) => `${count(number)} ${state}`)].join(", ")} />
      <Figure value={count(rate.last_hour)} what="labels in the last hour" note={rate.annotators ? `by ${plural(rate.annotators, "annotator")}` : "nobody is labeling"} />
      <Figure value={metrics.ranking ? String((metrics.ranking.strategy as { name: string }).name) : "random"} what={metrics.ranking ? `ranking ${metrics.ranking.version}, ${ago(metrics.ranking.created_at)}` : "no ranking yet: random items"} />
    </section>
  );
}

function Figure({ value, what, note, more }: { value: string; what: string; note?: string; more?: preact.ComponentChildren }) {
  return (
    <div class="figure">
      <b>{value}</b>
      <span>{what}</span>
      {note && <span class="quiet">{note}</span>}
      {more}
    </div>
  );
}

function Sentences({ metrics }: { metrics: Metrics }) {
  const said = [metrics.random_selection?.accuracy ? metrics.random_selection.text : null, metrics.head_note, metrics.score_run?.note, metrics.ranking?.note];
  return (
    <>
      {said.filter(Boolean).map((sentence) => (
        <p key={sentence}>{sentence}</p>
      ))}
    </>
  );
}

function agreementOf(metrics: Metrics): string {
  const { pairs, alpha, items } = metrics.agreement as NonNullable<Metrics["agreement"]>;
  return `${percent(pairs, 0)} agreement on ${plural(items, "item")}${alpha === null ? "" : `, alpha ${alpha.toFixed(2)}`}`;
}

function Balance({ metrics, project }: { metrics: Metrics; project: string }) {
  const all = Object.values(metrics.class_balance).reduce((sum, number) => sum + number, 0);
  if (all === 0) return <Empty title="No labels yet">Here you see how many items of each class are labeled.</Empty>;
  const rows = Object.entries(metrics.class_balance)
    .sort(([, a], [, b]) => b - a)
    .map(([name, value]) => ({ name, value, text: count(value), note: `${percent(value / all)} of what is labeled` }));
  return <Bars rows={rows} link={(name) => href(project, "gallery", { class: name, state: "done" })} />;
}

function Pretext({ model, project, metrics, onChange }: { model: PretextModel | null; project: Project; metrics: Metrics; onChange: () => void }) {
  const busy = metrics.jobs.some((job) => job.kind === "train_pretext");
  if (!model && metrics.score_run?.pretext_model) {
    return (
      <>
        {metrics.score_run.gate && <GateShown gate={metrics.score_run.gate} />}
        <p>
          The pretext model {metrics.score_run.pretext_model} is borrowed{" "}
          {project.pretext_from ? <>from <a href={href(project.pretext_from)}>project {project.pretext_from}</a></> : "from another project"}.
        </p>
      </>
    );
  }
  if (!model) {
    return (
      <Empty title="No pretext model yet">
        Until there is one, batches are ranked by raw features.{" "}
        {mayManage() && !busy && (
          <button class="link" onClick={() => void send("POST", `/projects/${project.id}/pretrain`, {}).then(onChange, onChange)}>
            Train one
          </button>
        )}
      </Empty>
    );
  }
  const history = model.history as { epoch: number; loss: number }[];
  const { trained, untrained, collapse, note } = model.diagnostics as { trained?: Record<string, number>; untrained?: Record<string, number>; collapse?: string | null; note?: string };
  const facts: [string, string][] = [
    ["state", model.state],
    ["loss", history.length ? history.map((epoch) => epoch.loss.toPrecision(3)).slice(-4).join(" → ") : "–"],
    ["collapse", collapse ?? "none"],
  ];
  for (const name of Object.keys(trained ?? {})) {
    if (name.startsWith("loss_")) continue;
    facts.push([words(name), [untrained?.[name], trained?.[name]].filter((value) => typeof value === "number").map(figure).join(" → ")]);
  }
  return (
    <>
      {metrics.score_run && <p>{metrics.score_run.embeddings}</p>}
      {model.gate && <GateShown gate={model.gate} />}
      {note && <p>{note}</p>}
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </>
  );
}

const VERDICTS = { go: "Go", "no-go": "No-go", "not enough labels": "Not enough labels" };

function GateShown({ gate }: { gate: Gate }) {
  const names = ["joined", "pretrained", "trained", "untrained", "raw"].filter((name) => name in gate.linear || name in gate.knn);
  const rows = (accuracies: Record<string, number>) => names.filter((name) => name in accuracies).map((name) => ({ name: name === "raw" ? "raw features" : name, value: accuracies[name] as number, text: percent(accuracies[name]) }));
  return (
    <div class="gate">
      <p>
        <span class={`badge ${gate.verdict === "go" ? "good" : gate.verdict === "no-go" ? "bad" : ""}`}>Gate: {VERDICTS[gate.verdict]}</span>
      </p>
      {names.length > 0 && (
        <div class="pair">
          <div>
            <h3>Linear probe</h3>
            <Bars rows={rows(gate.linear)} most={1} />
          </div>
          <div>
            <h3>10 nearest neighbours</h3>
            <Bars rows={rows(gate.knn)} most={1} />
          </div>
        </div>
      )}
      <p class="quiet">{gate.reason}</p>
    </div>
  );
}

function Losses({ histogram, project }: { histogram: NonNullable<Scores["histogram"]>; project: string }) {
  const most = Math.log1p(Math.max(...histogram.counts));
  const all = histogram.counts.reduce((sum, number) => sum + number, 0);
  let below = 0;
  return (
    <figure>
      <div class="histogram">
        {histogram.counts.map((number, index) => {
          const [low, high] = [histogram.edges[index] as number, histogram.edges[index + 1] as number];
          const from = (100 * below) / all;
          below += number;
          const to = (100 * below) / all;
          const [labeled, ranked] = [histogram.labeled?.[index] ?? 0, histogram.ranked[index] ?? 0];
          const parts = [labeled && `${count(labeled)} labeled`, ranked && `${count(ranked)} next in the ranking`].filter(Boolean);
          const said = `${plural(number, "item")} with a loss of ${figure(low)} to ${figure(high)}${parts.length ? `: ${parts.join(", ")}` : ""}`;
          const height = (part: number) => ({ height: `${part && Math.max(2, (100 * Math.log1p(part)) / most)}%` });
          const query = { sort: "-pretext_loss", pretext_loss_percentile_min: from.toFixed(2), pretext_loss_percentile_max: to.toFixed(2) };
          return number === 0 ? (
            <span key={index} />
          ) : (
            <a key={index} href={href(project, "gallery", query)} title={said} aria-label={said}>
              <span style={height(number)} />
              <span class="labeled" style={height(labeled)} />
              <span class="ranked" style={height(ranked)} />
            </a>
          );
        })}
      </div>
      <div class="ends quiet">
        <span>{figure(histogram.edges[0] ?? 0)}</span>
        <span>pretext loss; heights are logarithmic</span>
        <span>{figure(histogram.edges.at(-1) ?? 0)}</span>
      </div>
      <figcaption class="legend blocks">
        <span>all</span>
        {histogram.labeled && <span class="labeled">labeled</span>}
        <span class="ranked">next in the ranking</span>
      </figcaption>
    </figure>
  );
}

function Confusion({ round, project }: { round: Round | null; project: Project }) {
  const metrics = round?.metrics;
  if (round && metrics?.average_precision) return <EachClass round={round.number} metrics={metrics} project={project} />;
  if (!round || !metrics?.confusion?.length) return <Empty title="Nothing measured yet">When a round is measured, you see here which classes the head takes for which.</Empty>;
  const names = Object.keys(metrics.recall ?? {});
  const matrix = metrics.confusion;
  if (names.length !== matrix.length || names.length > 30) {
    const recalls = names.map((name) => ({ name, value: metrics.recall?.[name] ?? 0, text: percent(metrics.recall?.[name]) })).sort((a, b) => a.value - b.value);
    return <Bars rows={recalls.slice(0, 30)} most={1} link={(name) => href(project.id, "gallery", { class: name })} />;
  }
  return (
    <div class="scroll" role="region" aria-label="Confusion matrix" tabIndex={0}>
      <table class={`confusion ${names.length > 12 ? "dense" : ""}`}>
        <thead>
          <tr>
            <td class="corner">
              taken for →<br />
              true class ↓
            </td>
            {names.map((name) => (
              <th key={name} scope="col" title={`predicted ${name}`}>
                <span dir="auto">{name}</span>
              </th>
            ))}
            <th scope="col">
              <span>recall</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {names.map((name, row) => {
            const all = matrix[row]?.reduce((sum, number) => sum + number, 0) || 1;
            return (
              <tr key={name}>
                <th scope="row" dir="auto">
                  <a href={href(project.id, "gallery", { class: name })}>{name}</a>
                </th>
                {matrix[row]?.map((number, column) => (
                  <td
                    key={column}
                    class={row === column ? "right" : number ? "wrong" : ""}
                    style={{ "--share": String(number / all) }}
                    title={`${number} of ${all} items of ${name} were taken for ${names[column]}`}
                  >
                    {number ? (
                      <a href={href(project.id, "gallery", { round: String(round.number), class: name, answered_class: names[column] as string })} aria-label={`${number} of ${all} items of ${name} were taken for ${names[column]}`}>
                        {number}
                      </a>
                    ) : (
                      ""
                    )}
                  </td>
                ))}
                <td class="recall">{percent(metrics.recall?.[name], 0)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** Where an item has several classes none is taken for another: each is found, missed, or seen where it is not. */
function EachClass({ round, metrics, project }: { round: number; metrics: NonNullable<Round["metrics"]>; project: Project }) {
  const precision = metrics.average_precision ?? {};
  const names = Object.keys(precision).sort((a, b) => (precision[a] ?? 2) - (precision[b] ?? 2));
  const cells: [keyof ClassConfusion, string, (name: string) => string, Record<string, string>][] = [
    ["true_positives", "right", (name) => `have ${name}, and the head found it`, { class: "", answered_class: "" }],
    ["false_negatives", "wrong", (name) => `have ${name}, and the head missed it`, { class: "", not_answered_class: "" }],
    ["false_positives", "wrong", (name) => `do not have ${name}, and the head says so`, { not_class: "", answered_class: "" }],
    ["true_negatives", "right", (name) => `do not have ${name}, and the head agrees`, { not_class: "", not_answered_class: "" }],
  ];
  return (
    <div class="scroll" role="region" aria-label="Each class" tabIndex={0}>
      <table class="confusion several">
        <caption class="quiet">Average precision (AP) of each class, the lowest first, and its items at a probability of 50 %.</caption>
        <thead>
          <tr>
            <td class="corner" />
            {["AP", "found", "missed", "false alarm", "rightly not"].map((name) => (
              <th key={name} scope="col">
                <span>{name}</span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {names.map((name) => {
            const found = metrics.confusion_by_class?.[name];
            const have = found ? found.true_positives + found.false_negatives : 0;
            const not = found ? found.false_positives + found.true_negatives : 0;
            return (
              <tr key={name}>
                <th scope="row" dir="auto">
                  <a href={href(project.id, "gallery", { class: name })}>{name}</a>
                </th>
                <td class="recall">{percent(precision[name], 0)}</td>
                {cells.map(([cell, kind, says, query], column) => {
                  const number = found?.[cell] ?? 0;
                  const all = (column < 2 ? have : not) || 1;
                  const told = `${number} of ${count(metrics.items ?? 0)} items ${says(name)}`;
                  return (
                    <td key={cell} class={number ? kind : ""} style={{ "--share": String(number / all) }} title={told}>
                      {number > 0 && (
                        <a href={href(project.id, "gallery", { round: String(round), ...Object.fromEntries(Object.keys(query).map((each) => [each, name])) })} aria-label={told}>
                          {number}
                        </a>
                      )}
                    </td>
                  );
                })}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** Accuracy by sureness: on the diagonal a head is as often right as it says. */
function Reliability({ round }: { round: Round | null }) {
  const bins = round?.metrics?.reliability;
  if (!bins?.length) return <Empty title="Nothing measured yet">When a round is measured, you see here how often the head is right where it is so and so sure.</Empty>;
  const most = Math.max(...bins.map((bin) => bin.items));
  const counted = round?.metrics?.confusion_by_class ? "answer" : "item"; // of several classes an item, one about each
  const said = bins.map((bin) => `${plural(bin.items, counted)}: ${percent(bin.sureness, 0)} sure, ${percent(bin.accuracy, 0)} right`);
  const [side, edge, margin] = [200, 26, 10];
  const [x, y] = [(value: number) => edge + side * value, (value: number) => margin + side * (1 - value)];
  return (
    <figure class="reliability">
      <svg viewBox={`0 0 ${side + edge + margin} ${side + edge + margin}`} role="img" aria-label={`Reliability: ${said.join("; ")}`} data-testid="reliability">
        {[0, 0.5, 1].map((tick) => (
          <g key={tick}>
            <line x1={x(0)} x2={x(1)} y1={y(tick)} y2={y(tick)} />
            <text x={x(0) - 4} y={y(tick) + 3} text-anchor="end">
              {100 * tick}
            </text>
            <text x={x(tick)} y={y(0) + 12} text-anchor="middle">
              {100 * tick}
            </text>
          </g>
        ))}
        <line class="ideal" x1={x(0)} y1={y(0)} x2={x(1)} y2={y(1)} />
        <polyline points={bins.map((bin) => `${x(bin.sureness)},${y(bin.accuracy)}`).join(" ")} />
        {bins.map((bin, index) => (
          <circle key={bin.sureness} cx={x(bin.sureness)} cy={y(bin.accuracy)} r={2.5 + 5 * Math.sqrt(bin.items / most)}>
            <title>{said[index]}</title>
          </circle>
        ))}
        <text x={x(0.5)} y={y(0) + 23} text-anchor="middle">
          sure, in %
        </text>
        <text x={7} y={y(0.5)} text-anchor="middle" transform={`rotate(-90 7 ${y(0.5)})`}>
          right, in %
        </text>
      </svg>
      <figcaption class="quiet">Larger dots stand for more {counted}s. Below the line the head is surer than it is right.</figcaption>
    </figure>
  );
}

const KINDS: [string, string, Record<string, string>][] = [
  ["quarantined", "cannot be read, never served", { state: "quarantined" }],
  ["broken", "rejected by annotators", { state: "broken" }],
  ["withdrawn", "taken out by an admin", { state: "withdrawn" }],
  ["changed", "their key has other bytes now", { state: "changed" }],
  ["missing", "not found again by an import", { state: "missing" }],
];

function Aside({ project, metrics }: { project: string; metrics: Metrics }) {
  return (
    <dl class="facts aside">
      {KINDS.map(([state, what, query]) => (
        <div key={state}>
          <dt>
            {state} <span class="quiet">{what}</span>
          </dt>
          <dd>{metrics.items[state] ? <a href={href(project, "gallery", query)}>{count(metrics.items[state])}</a> : "none"}</dd>
        </div>
      ))}
      {(
        [
          ["barred", "probably broken, left out of the ranking", { barred: "true" }],
          ["duplicates", "others stand for them in rankings", { duplicates: "true" }],
          ["suspects", "labels that the head contradicts", { show: "suspects" }],
          ["disagreed on", "annotators gave several classes", { disagreed: "true" }],
        ] as [string, string, Record<string, string>][]
      ).map(([name, what, query]) => (
        <div key={name}>
          <dt>
            {name} <span class="quiet">{what}</span>
          </dt>
          <dd>
            <a href={href(project, "gallery", query)}>show</a>
          </dd>
        </div>
      ))}
    </dl>
  );
}

const CORRELATION = "Spearman correlation of pretext loss and head loss, with its 95 % interval: what the pretext loss is worth for picking";

function Rounds({ rounds, project }: { rounds: Round[]; project: string }) {
  const headings = [{ name: "round" }, { name: "labels used" }, { name: "arms" }, { name: "strategy" }, { name: figureOf(rounds.find((round) => round.metrics?.measured_on)?.metrics).name }, { name: "95 % interval" }, { name: "macro-F1" }, { name: "ECE", hint: "expected calibration error" }, { name: "measured on" }, { name: "loss correlation", hint: CORRELATION }, { name: "promoted" }, { name: "pinned to", hint: "score run, ranking, head and seed it was served and measured with" }, { name: "closed" }];
  const rows = rounds.map((round) => {
    const metrics = round.metrics;
    const correlation = metrics?.pretext_loss_correlation;
    const figure = figureOf(metrics);
    return {
      key: round.number,
      cells: [
        round.number,
        round.labels_used,
        Object.entries(round.arms).map(([arm, number]) => `${number} ${arm}`).join(", "),
        (round.strategy as { name?: string } | null)?.name,
        figure.value === null ? null : percent(figure.value),
        figure.value === null ? null : `${percent(figure.low)} – ${percent(figure.high)}`,
        metrics?.macro_f1 == null ? null : percent(metrics.macro_f1),
        metrics?.ece?.toFixed(3),
        metrics?.measured_on ? `${count(metrics.items ?? 0)} ${metrics.measured_on}` : null,
        correlation ? `${correlation.rho.toFixed(2)} (${correlation.low.toFixed(2)} to ${correlation.high.toFixed(2)})` : null,
        metrics?.promoted == null ? null : metrics.promoted ? "yes" : "no, worse",
        [round.score_run, round.ranking, round.head === null ? null : `head ${round.head}`, round.seed === null ? null : `seed ${round.seed}`].filter(Boolean).join(", ") || null,
        round.closed_at ? clock(round.closed_at) : "open",
      ],
    };
  });
  const older = (rounds.at(-1)?.number ?? 1) - 1;
  return (
    <>
      <Table label="Rounds" headings={headings} rows={rows} />
      {older > 0 && (
        <p class="quiet">
          Older rounds: 1 to {older}, in GET /projects/{project}/rounds
        </p>
      )}
    </>
  );
}

const share = (found: Share | null) => (found?.items ? `${percent(found.share)} of ${found.items} (${percent(found.low, 0)} – ${percent(found.high, 0)})` : null);

function Annotators({ page, project }: { page: Page<AnnotatorReport>; project: string }) {
  if (page.items.length === 0) return <Empty title="Nobody has labeled yet">Here you see how fast annotators are, and how well they agree.</Empty>;
  const headings = [{ name: "annotator" }, { name: "labels" }, { name: "skips" }, { name: "time a label" }, { name: "gold items right" }, { name: "agrees with the others" }, { name: "quality", hint: "CROWDLAB's, 0 to 1" }, { name: "newest label" }];
  const rows = page.items.map((found) => ({
    key: found.annotator,
    cells: [
      <span dir="auto">
        {found.annotator}
        {found.alike.length > 0 && <span class="bad"> Is it {found.alike.join(", ")}, too?</span>}
      </span>, count(found.labels), count(found.skips), found.mean_duration_ms === null ? null : duration(found.mean_duration_ms / 1000), share(found.gold), share(found.agreement), found.quality?.toFixed(2), clock(found.newest_at)],
  }));
  return (
    <>
      <Table label="Annotators" headings={headings} rows={rows} />
      {page.next_cursor && (
        <p class="quiet">
          These are the first {page.items.length} by name; others: GET /projects/{project}/annotators
        </p>
      )}
    </>
  );
}

const took = (job: Job) => (job.started_at && job.finished_at ? `took ${duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000)}` : "");

/** Each row of an import is one of these; then what it did not find again, and the commonest reasons. */
function importCounts(job: Job): string | undefined {
  if (job.kind !== "import_source" || !job.result) return undefined;
  const result = job.result as Record<string, number> & { quarantine_reasons?: { reason: string; items: number }[]; refusals?: string[] };
  const names = ["added", "known", "changed", "moved", "quarantined", "refused", "ignored", "missing"];
  const counts = names.filter((name) => result[name]).map((name) => `${count(result[name] as number)} ${name}`);
  const reasons = [...(result.quarantine_reasons ?? []).map(({ reason, items }) => `${items}: ${reason}`), ...(result.refusals ?? []).slice(0, 2)];
  return [counts.join(", "), ...reasons].filter(Boolean).join(" · ");
}

const outcome = (job: Job) => job.error ?? importCounts(job) ?? (typeof job.result?.missing === "string" ? job.result.missing : undefined) ?? job.message ?? took(job);

/** What queues such a job again, where the API has that. */
function retryOf(job: Job): string | null {
  const at = `/projects/${job.project}`;
  const again: Record<string, string> = { train_pretext: `${at}/pretrain`, train_head: `${at}/retrain`, check_labels: `${at}/suspects/check` };
  return again[job.kind] ?? null;
}

function Retry({ job, onChange }: { job: Job; onChange: () => void }) {
  const [refused, setRefused] = useState<string | null>(null);
  return refused ? (
    <span class="bad">{refused}</span>
  ) : (
    <button class="link" onClick={() => void send("POST", retryOf(job) as string, job.kind === "check_labels" ? undefined : {}).then(onChange, (error: Error) => setRefused(error.message))}>
      again
    </button>
  );
}

function Jobs({ jobs, onChange }: { jobs: Job[]; onChange: () => void }) {
  if (jobs.length === 0) return <Empty title="No jobs yet">Imports, pretraining, scoring, rankings and heads are listed here.</Empty>;
  return (
    <ul class="jobs">
      {jobs.map((job) => (
        <li key={job.id}>
          <span>{words(job.kind)}</span>
          <span class={`state ${job.state}`}>{job.state}</span>
          <span class="quiet job-detail">
            {job.state === "running" && <Progress value={job.progress} label={`Progress of ${words(job.kind)}`} />}
            {job.state === "running" ? [job.message, job.eta_s !== null && job.eta_s > 1 ? `${duration(job.eta_s)} left` : null].filter(Boolean).join(", ") : job.waits_for ? `waits for ${job.waits_for}` : outcome(job)}
          </span>
          <span class="quiet">{clock(job.created_at)}</span>
          <span>
            {mayManage() && (job.state === "running" || job.state === "queued") && (
              <button class="link" disabled={job.cancel_requested} onClick={() => void send("DELETE", `/jobs/${job.id}`).then(onChange, onChange)}>
                {job.cancel_requested ? "cancelling" : "cancel"}
              </button>
            )}
            {mayManage() && (job.state === "failed" || job.state === "cancelled") && retryOf(job) && <Retry job={job} onChange={onChange} />}
          </span>
        </li>
      ))}
    </ul>
  );
}
