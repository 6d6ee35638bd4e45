// Small pieces that several views share.

import type { ComponentChildren } from "preact";

export function Progress({ value, label }: { value: number; label: string }) {
  return (
    <span class="meter" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(100 * value)}>
      <span style={{ width: `${Math.max(0, Math.min(100, 100 * value))}%` }} />
    </span>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <b>{title}</b>
      <p>{children}</p>
    </div>
  );
}

export function Card({ title, note, wide, tall, children }: { title: string; note?: ComponentChildren; wide?: boolean; tall?: boolean; children: ComponentChildren }) {
  return (
    <section class={`card ${wide ? "wide" : ""} ${tall ? "tall" : ""}`} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {note && <span class="quiet">{note}</span>}
      </header>
      {children}
    </section>
  );
}

/** A bar a row: a name, its bar, its number. */
export function Bars({ rows, most, link }: { rows: { name: string; value: number; text: string; note?: string }[]; most?: number; link?: (name: string) => string }) {
  const longest = most ?? Math.max(1, ...rows.map((row) => row.value));
  return (
    <ul class="bars">
      {rows.map((row) => (
        <li key={row.name} title={row.note}>
          <span class="bar-name" dir="auto">
            {link ? <a href={link(row.name)}>{row.name}</a> : row.name}
          </span>
          <span class="track">
            <span style={{ width: `${(100 * row.value) / longest}%` }} />
          </span>
          <span class="bar-value">{row.text}</span>
        </li>
      ))}
    </ul>
  );
}

/** A table that scrolls by itself where it is too wide. */
export function Table({ label, headings, rows }: { label: string; headings: { name: string; hint?: string }[]; rows: { key: string | number; cells: ComponentChildren[] }[] }) {
  return (
    <div class="scroll" role="region" aria-label={`${label}, as a table`} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {headings.map((heading) => (
              <th key={heading.name} scope="col" title={heading.hint}>
                {heading.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key}>
              {row.cells.map((cell, index) => (
                <td key={index}>{cell ?? "–"}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
