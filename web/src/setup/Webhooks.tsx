// Addresses of other programs that are told of what happens.

import { useEffect, useState } from "preact/hooks";

import { get, send, type Delivery, type Page, type Webhook } from "../api";
import { plural } from "../format";

const EVENTS: Webhook["events"] = ["round.closed", "round.measured", "head.promoted", "ranking.ready", "classes.changed", "job.failed"];
const LOOK_MS = 700;
const LOOKS = 12;

export function Webhooks({ project }: { project: string }) {
  const at = `/projects/${project}`;
  const [found, setFound] = useState<Webhook[]>([]);
  const [url, setUrl] = useState("");
  const [events, setEvents] = useState<Webhook["events"]>(EVENTS);
  const [secret, setSecret] = useState<string | null>(null);
  const [said, setSaid] = useState<{ text: string; bad?: boolean } | null>(null);
  const load = () => get<Page<Webhook>>(`${at}/webhooks`).then((page) => setFound(page.items));
  useEffect(() => void load().catch(() => {}), [project]);
  const act = (doing: Promise<unknown>) => doing.then(load, (error: Error) => setSaid({ text: error.message, bad: true }));
  const make = async () => {
    const made = await send<Webhook & { secret: string }>("POST", `${at}/webhooks`, { url: url.trim(), events });
    setSecret(made.secret);
    setUrl("");
    setSaid(null);
  };
  const test = async (webhook: Webhook) => {
    const { id } = await send<Delivery>("POST", `${at}/webhooks/${webhook.id}/test`);
    setSaid({ text: "A test is on its way …" });
    for (let look = 0; look < LOOKS; look++) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      const delivery = (await get<Page<Delivery>>(`${at}/webhooks/${webhook.id}/deliveries`, { limit: 20 })).items.find((one) => one.id === id);
      if (delivery && delivery.attempts > 0) {
        return setSaid(delivery.state === "delivered" ? { text: `The test arrived: ${delivery.status}.` } : { text: `The test did not arrive: ${delivery.error}`, bad: true });
      }
    }
    setSaid({ text: "The test has not been sent yet; it is tried for hours.", bad: true });
  };
  return (
    <div class="stack">
      <ul class="past">
        {found.map((webhook) => (
          <li key={webhook.id} class="row">
            <span class="mono">{webhook.url}</span>
            <span class="quiet">
              {webhook.events.length === EVENTS.length ? "all events" : webhook.events.join(", ")}
              {webhook.pending > 0 && `; ${webhook.pending} on their way`}
              {webhook.dead > 0 && `; ${plural(webhook.dead, "was", "were")} given up`}
            </span>
            <button class="link" onClick={() => void act(test(webhook))}>
              test
            </button>
            {webhook.dead > 0 && (
              <button class="link" onClick={() => void act(send("POST", `${at}/webhooks/${webhook.id}/send-again`))}>
                send again
              </button>
            )}
            <button class="link" onClick={() => void act(send("DELETE", `${at}/webhooks/${webhook.id}`))}>
              delete
            </button>
          </li>
        ))}
      </ul>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void act(make());
        }}
      >
        <p class="row">
          <input aria-label="Address of a webhook" type="url" placeholder="https://…" value={url} maxLength={2000} onInput={(event) => setUrl(event.currentTarget.value)} required />
          <button disabled={events.length === 0}>Add webhook</button>
        </p>
        <fieldset class="row checks">
          <legend class="quiet">It is told of</legend>
          {EVENTS.map((name) => (
            <label key={name}>
              <input type="checkbox" checked={events.includes(name)} onChange={() => setEvents(events.includes(name) ? events.filter((one) => one !== name) : EVENTS.filter((one) => one === name || events.includes(one)))} /> {name}
            </label>
          ))}
        </fieldset>
      </form>
      {secret && (
        <p class="notice">
          Its secret, with which the libraries of Standard Webhooks check what comes. It is shown this once:
          <input class="mono" aria-label="Secret of the webhook" readOnly value={secret} onFocus={(event) => event.currentTarget.select()} />
        </p>
      )}
      {said && <p class={said.bad ? "bad" : ""} role="status">{said.text}</p>}
    </div>
  );
}
