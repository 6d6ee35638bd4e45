// The dashboard: told of changes by the project's event stream, it asks the JSON API with ETags and redraws what
// changed. While there is no stream it polls. No framework, no build.

const POLL_MS = 2000;
const TOLD_POLL_MS = 30000; // beside a stream: what no event tells, such as the label rate
const GATHER_MS = 200; // changes that come together are drawn together
const ROUNDS = 30; // the newest that are shown
const JOBS = 12;
const $ = (id) => document.getElementById(id);
const cache = new Map(); // path -> {etag, body}

// ---- the key: after '#' in the address, else from this tab's session ----

function takeKey() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  if (fragment.has("key")) {
    sessionStorage.setItem("key", fragment.get("key").trim());
    fragment.delete("key");
    history.replaceState(null, "", fragment.size ? `#${fragment}` : location.pathname);
  }
  const key = sessionStorage.getItem("key");
  if (key && !/^[ -~]+$/.test(key)) throw new Refused("A key has ASCII characters only, and this has others. Copy it once more."); // no header can carry it
  return key;
}

class Refused extends Error {}
class Missing extends Error {}

async function get(path) {
  const known = cache.get(path);
  const headers = { Authorization: `Bearer ${takeKey()}` };
  if (known?.etag) headers["If-None-Match"] = known.etag;
  const response = await fetch(path, { headers });
  if (response.status === 304) return known.body;
  const body = await response.json();
  if (response.status === 401 || response.status === 403) throw new Refused(body.detail);
  if (response.status === 404) throw new Missing(body.detail);
  if (!response.ok) throw new Error(body.detail);
  cache.set(path, { etag: response.headers.get("ETag"), body });
  return body;
}

// ---- drawing ----

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.map((child) => child ?? "–"));
  return made;
}

// Only if it differs, so that what has the focus or is selected stays so.
function fill(id, ...children) {
  const filled = $(id).cloneNode(false);
  filled.append(...children);
  if (!filled.isEqualNode($(id))) $(id).replaceChildren(...filled.childNodes);
}

function say(id, text) {
  $(id).hidden = !text;
  fill(id, text ?? "");
}

const percent = (share) => (share == null ? null : `${(100 * share).toFixed(1)} %`);
function clock(time) {
  if (!time) return null;
  const [at, now] = [new Date(time), new Date()];
  const day = at.toDateString() === now.toDateString() ? {} : { month: "short", day: "numeric" };
  const year = at.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return at.toLocaleString([], { ...year, ...day, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function drawProjects({ items, next_cursor: more }, current) {
  const listed = !current || items.some((project) => project.id === current.id) ? items : [...items, current];
  const links = listed.map((project) => element("a", { href: `#project=${project.id}` }, project.name));
  for (const link of $("projects").querySelectorAll("[aria-current]")) link.removeAttribute("aria-current");
  fill("projects", ...links, ...(more ? [element("span", { class: "quiet" }, `the first ${items.length}; add #project=… to the address for others`)] : []));
  const index = listed.findIndex((project) => project.id === current?.id);
  $("projects").children[index]?.setAttribute("aria-current", "page");
}

function drawFigures(project, metrics) {
  const latest = metrics.learning_curve.at(-1);
  const figures = [
    [metrics.labels_used.toLocaleString(), metrics.budget ? `of ${metrics.budget.toLocaleString()} labels` : "labels"],
    [percent(latest?.accuracy), latest ? `accuracy (${percent(latest.accuracy_low)} – ${percent(latest.accuracy_high)})` : "accuracy: no head yet"],
    [metrics.pool_items.toLocaleString(), "items in the pool"],
    [metrics.ranking ? metrics.ranking.strategy.name : null, metrics.ranking ? `ranking ${metrics.ranking.version}` : "no ranking yet: random items"],
  ];
  fill("figures", ...figures.map(([value, what]) => element("div", {}, element("b", {}, value), element("span", {}, what))));
}

function drawCurve(points) {
  if (points.length === 0) {
    fill("curve", element("p", { class: "quiet" }, "The curve begins when the first round is labeled and measured."));
    return;
  }
  const [width, height, left, bottom, top] = [720, 250, 44, 40, 10];
  const most = Math.max(...points.map((point) => point.labels_used));
  const lowest = Math.floor(10 * Math.min(...points.map((point) => point.accuracy_low))) / 10;
  const highest = Math.max(lowest + 0.1, Math.ceil(10 * Math.max(...points.map((point) => point.accuracy_high))) / 10);
  const x = (labels) => left + ((width - left - 12) * labels) / most;
  const y = (accuracy) => top + ((height - bottom - top) * (highest - accuracy)) / (highest - lowest);
  const path = (list) => list.map(([a, b], index) => `${index ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  const band = [...points.map((p) => [x(p.labels_used), y(p.accuracy_high)]), ...points.toReversed().map((p) => [x(p.labels_used), y(p.accuracy_low)])];
  const lines = [];
  const step = highest - lowest > 0.35 ? 0.1 : 0.05;
  for (let tick = lowest; tick <= highest + 1e-9; tick += step) {
    lines.push(`<line x1="${left}" x2="${width - 12}" y1="${y(tick)}" y2="${y(tick)}" stroke="#eceef1"/><text x="${left - 8}" y="${y(tick) + 4}" text-anchor="end">${(100 * tick).toFixed(0)} %</text>`);
  }
  for (let tick = 1; tick <= 5; tick++) {
    const labels = Math.round((most * tick) / 5);
    lines.push(`<text x="${x(labels)}" y="${height - 22}" text-anchor="${tick === 5 ? "end" : "middle"}">${labels}</text>`);
  }
  lines.push(`<text x="${(left + width) / 2}" y="${height - 4}" text-anchor="middle">labels used</text>`);
  const dots = points.map((p) => `<circle cx="${x(p.labels_used)}" cy="${y(p.accuracy)}" r="3.5" fill="#1f5fbf"><title>${p.labels_used} labels: ${percent(p.accuracy)}</title></circle>`);
  const holder = element("div");
  holder.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Accuracy against labels used">${lines.join("")}
    <path d="${path(band)}Z" fill="#1f5fbf" opacity=".12"/>
    <path d="${path(points.map((p) => [x(p.labels_used), y(p.accuracy)]))}" fill="none" stroke="#1f5fbf" stroke-width="2"/>${dots.join("")}</svg>`;
  fill("curve", ...holder.childNodes);
}

function drawAdvice(metrics) {
  const pretext = [metrics.score_run?.embeddings, metrics.score_run?.note, metrics.score_run?.gate && `Gate: ${metrics.score_run.gate.verdict}. ${metrics.score_run.gate.reason}`];
  const sentences = [metrics.advice.text, metrics.random_selection?.text, metrics.head_note, ...pretext, metrics.ranking?.note].filter(Boolean);
  fill("advice", ...sentences.map((sentence) => element("p", {}, sentence)));
}

const HINTS = { "loss correlation": "Spearman correlation of pretext loss and head loss, with its 95 % interval: what the pretext loss is worth for picking" };

function drawRounds(project, rounds) {
  const headings = ["round", "labels used", "strategy", "accuracy", "95 % interval", "macro-F1", "measured on", "loss correlation", "promoted", "closed"];
  const rows = rounds.map((round) => {
    const metrics = round.metrics ?? {};
    const interval = metrics.accuracy == null ? null : `${(100 * metrics.accuracy_low).toFixed(1)} – ${percent(metrics.accuracy_high)}`;
    const correlation = metrics.pretext_loss_correlation;
    const cells = [
      `${round.number}`, `${round.labels_used ?? "–"}`, round.strategy?.name, percent(metrics.accuracy),
      interval, percent(metrics.macro_f1), metrics.measured_on ? `${metrics.items} ${metrics.measured_on}` : null,
      correlation ? `${correlation.rho.toFixed(2)} (${correlation.low.toFixed(2)} to ${correlation.high.toFixed(2)})` : null,
      metrics.promoted == null ? null : metrics.promoted ? "yes" : "no, worse",
      clock(round.closed_at) ?? "open",
    ];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
  });
  fill("rounds", element("tr", {}, ...headings.map((heading) => element("th", HINTS[heading] ? { title: HINTS[heading] } : {}, heading))), ...rows);
  const older = rounds.at(-1).number - 1;
  say("older-rounds", older ? `Older rounds: 1 to ${older}, in GET /projects/${project.id}/rounds` : null);
}

const share = (found) => (found?.items ? `${percent(found.share)} of ${found.items} (${percent(found.low)} – ${percent(found.high)})` : null);

function drawAnnotators(project, { items: annotators, next_cursor: more }) {
  const headings = ["annotator", "labels", "skips", "gold items right", "agrees with the others", "newest label"];
  const rows = annotators.map((found) => {
    const cells = [found.annotator, `${found.labels}`, `${found.skips}`, share(found.gold), share(found.agreement), clock(found.newest_at)];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
  });
  fill("annotators", element("tr", {}, ...headings.map((heading) => element("th", {}, heading))), ...rows);
  say("more-annotators", more ? `These are the first ${annotators.length} by name; others: GET /projects/${project.id}/annotators` : null);
}

/** Every row of an import is one of these; then what it did not find again, and the commonest reasons. */
function importCounts({ kind, result }) {
  if (kind !== "import_source" || !result) return null;
  const names = ["added", "known", "changed", "moved", "quarantined", "refused", "ignored", "missing"];
  const counts = names.filter((name) => result[name]).map((name) => `${result[name]} ${name}`);
  const reasons = [...(result.quarantine_reasons ?? []).map(({ reason, items }) => `${items}: ${reason}`), ...(result.refusals ?? []).slice(0, 2)];
  return [counts.join(", "), ...reasons].join(" · ");
}

function drawJobs(jobs) {
  const rows = jobs.map((job) => {
    const detail =
      job.state === "running"
        ? element("span", { class: "quiet" }, element("progress", { value: job.progress, max: 1, "aria-label": `Progress of ${job.kind}` }), job.message ?? "")
        : element("span", { class: "quiet" }, job.waits_for ? `waits for ${job.waits_for}` : (job.error ?? importCounts(job) ?? job.result?.missing ?? job.message ?? ""));
    return element("li", {}, element("span", {}, job.kind), element("span", { class: job.state }, job.state), detail, element("span", { class: "quiet" }, clock(job.created_at)));
  });
  fill("jobs", ...(rows.length ? rows : [element("li", { class: "quiet" }, "none yet")]));
}

// ---- what changes ----

let listening = { to: null, stop: () => {} };

function listen(project) {
  if (listening.to === project) return;
  listening.stop();
  const stopping = new AbortController();
  const mine = (listening = { to: project, told: false, stop: () => stopping.abort() });
  read(mine, stopping.signal)
    .catch(() => {}) // as when it ends: the next tick polls, and listens anew
    .finally(() => {
      if (listening === mine) listening = { to: null, stop: () => {} };
    });
}

// Not an EventSource: that cannot send the key.
async function read(mine, signal) {
  const headers = { Authorization: `Bearer ${takeKey()}` };
  const response = await fetch(`/projects/${mine.to}/events`, { headers, signal });
  if (!response.ok) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let [gathering, rest] = [null, ""];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    mine.told = true;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (lines.includes("event: labels")) labelsTold++;
    const comment = lines.every((line) => line === "" || line.startsWith(":")); // whatever else tells of a change
    if (!comment) gathering ??= setTimeout(() => ((gathering = null), tick()), GATHER_MS);
  }
}

// ---- the loop ----

let labelsTold = 0; // events: also of skips, undo and gold items, which leave the figures as they are
let annotatorsKnown = null;
let begun = 0; // draws overlap, and what a later one has drawn is newer
let drawn = { number: 0, project: null };

async function chosen(projects, wanted) {
  if (!wanted) return projects[0];
  const listed = projects.find((project) => project.id === wanted);
  return listed ?? get(`/projects/${encodeURIComponent(wanted)}`).catch((error) => {
    if (!(error instanceof Missing)) throw error;
  });
}

async function draw() {
  const number = ++begun;
  const projects = await get("/projects");
  if (number < drawn.number) return;
  $("sign-in").hidden = true;
  const wanted = new URLSearchParams(location.hash.slice(1)).get("project");
  const project = await chosen(projects.items, wanted);
  if (number < drawn.number) return;
  drawProjects(projects, project);
  $("project").hidden = !project;
  if (!project) {
    listening.stop();
    return say("notice", wanted ? `This key sees no project ${wanted}.` : "No projects yet. Start with: shortlist up --items PATH --classes cat,dog — or POST /projects.");
  }
  listen(project.id);
  const [metrics, rounds, jobs] = await Promise.all([
    get(`/projects/${project.id}/metrics`),
    get(`/projects/${project.id}/rounds?newest_first=true&brief=true&limit=${ROUNDS}`),
    get(`/jobs?project=${project.id}&limit=${JOBS}`),
  ]);
  if (number < drawn.number) return;
  drawn = { number, project: project.id };
  drawFigures(project, metrics);
  drawCurve(metrics.learning_curve);
  drawAdvice(metrics);
  drawRounds(project, rounds.items);
  drawJobs(jobs.items);
  // Counting them takes longer than the rest: after a change, and now and then for what nothing tells.
  const known = [project.id, metrics.labels_used, jobs.items[0]?.id, labelsTold, Math.floor(Date.now() / TOLD_POLL_MS)].join();
  if (known !== annotatorsKnown) {
    const annotators = await get(`/projects/${project.id}/annotators`);
    if (drawn.project !== project.id) return;
    drawAnnotators(project, annotators);
    annotatorsKnown = known;
  }
  say("notice", project.state === "paused" ? "This project is paused: nothing is served until its state is active again." : null);
}

let drawnAt = 0;

async function tick() {
  drawnAt = Date.now();
  try {
    if (takeKey()) await draw();
    else askForKey();
  } catch (error) {
    if (error instanceof Refused) sessionStorage.removeItem("key");
    if (error instanceof Refused || cache.size === 0) askForKey(); // nothing was answered to this key
    say("notice", error instanceof TypeError ? "The service does not answer. Is it running?" : error.message);
  }
}

function askForKey() {
  $("sign-in").hidden = false;
  $("project").hidden = true;
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  cache.clear();
  tick();
});
addEventListener("hashchange", tick);
tick();
setInterval(() => {
  if (document.hidden) return listening.stop(); // it holds one of the few connections a browser has to a host
  if (Date.now() - drawnAt >= (listening.told ? TOLD_POLL_MS : POLL_MS)) tick();
}, POLL_MS);
