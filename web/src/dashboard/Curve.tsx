// The learning curve: accuracy with its 95 % interval, and what random selection would have reached.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import type { Metrics, Round } from "../api";
import { figureOf } from "../classes";
import { percent } from "../format";
import { theme } from "../theme";

type Column = (number | null)[];
type RandomCurve = NonNullable<NonNullable<Round["metrics"]>["random_curve"]>;

function shown(point: Parameters<typeof figureOf>[0]): [number | null, number | null, number | null] {
  const { value, low, high } = figureOf(point);
  return [value, low, high];
}

function columns(metrics: Metrics, random: RandomCurve): uPlot.AlignedData {
  const rows = new Map<number, Column>();
  const at = (labels: number) => rows.get(labels) ?? rows.set(labels, [null, null, null, null, null, null]).get(labels)!;
  for (const point of metrics.learning_curve) at(point.labels_used).splice(0, 3, ...shown(point));
  for (const point of random) at(point.labels).splice(3, 3, ...shown(point));
  const estimate = metrics.random_selection;
  if (estimate?.accuracy && estimate.labels !== null) at(estimate.labels).splice(3, 3, estimate.accuracy.mean, estimate.accuracy.low, estimate.accuracy.high);
  const order = [...rows.keys()].sort((a, b) => a - b);
  return [order, ...[0, 1, 2, 3, 4, 5].map((index) => order.map((labels) => rows.get(labels)![index] ?? null))] as uPlot.AlignedData;
}

export function Curve({ metrics, random }: { metrics: Metrics; random: RandomCurve }) {
  const holder = useRef<HTMLDivElement>(null);
  const data = columns(metrics, random);
  const withRandom = random.length > 0 || metrics.random_selection?.accuracy != null;
  const drawn = JSON.stringify(data);
  useEffect(() => {
    const place = holder.current as HTMLDivElement;
    const token = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const line = (label: string, colour: string, dash?: number[]): uPlot.Series => ({
      label,
      stroke: colour,
      width: 2,
      spanGaps: true,
      points: { show: true, size: 7, fill: colour },
      value: (_, value) => (value == null ? "–" : percent(value)),
      ...(dash ? { dash } : {}),
    });
    const edge = (): uPlot.Series => ({ show: true, width: 0, spanGaps: true, points: { show: false } });
    const axis = { stroke: token("--quiet"), grid: { stroke: token("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const [ours, theirs] = [token("--series-1"), token("--series-2")];
    const plot = new uPlot(
      {
        width: place.clientWidth,
        height: 300,
        scales: { x: { time: false, range: (_, low, high) => [Math.min(low, 0), high === low ? high + 1 : high * 1.02] }, y: { range: (_, low, high) => [Math.max(0, Math.floor(20 * low - 0.2) / 20), Math.min(1, Math.ceil(20 * high + 0.2) / 20)] } },
        axes: [
          { ...axis, label: "labels used", labelFont: "12px system-ui, sans-serif", labelSize: 18, size: 34 },
          { ...axis, size: 48, values: (_, ticks) => ticks.map((tick) => `${Math.round(100 * tick)} %`) },
        ],
        series: [{ label: "labels" }, line("Shortlist", ours), edge(), edge(), line("random", theirs, [6, 4]), edge(), edge()],
        bands: [
          { series: [3, 2], fill: `${ours}26` },
          { series: [6, 5], fill: `${theirs}22` },
        ],
        legend: { show: false },
        cursor: { y: false, points: { size: 10 } },
        hooks: {
          setCursor: [
            (self) => {
              const tip = place.nextElementSibling as HTMLElement;
              const index = self.cursor.idx;
              const row = index == null ? null : self.data.map((column) => column[index]);
              const said = (at: number, name: string) => (row?.[at] == null ? [] : [`${name} ${percent(row[at])} (${percent(row[at + 1])} to ${percent(row[at + 2])})`]);
              tip.textContent = row ? [`${row[0]} labels`, ...said(1, "Shortlist"), ...said(4, "random")].join(" · ") : tip.dataset.rest ?? "";
            },
          ],
        },
      },
      data,
      place,
    );
    const resized = new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 300 }));
    resized.observe(place);
    return () => {
      resized.disconnect();
      plot.destroy();
    };
  }, [drawn, theme.value]);
  const newest = metrics.learning_curve.at(-1);
  const figure = figureOf(newest);
  const named = figure.name === "accuracy" ? "" : ` ${figure.name}`;
  const rest = newest ? `${newest.labels_used} labels · ${percent(figure.value)}${named} (${percent(figure.low)} to ${percent(figure.high)}), measured on ${newest.items} ${newest.measured_on} items` : "";
  return (
    <figure class="curve">
      <div class="legend">
        <span class="series-1">Shortlist, with 95 % interval</span>
        {withRandom && <span class="series-2">random selection, by control items</span>}
      </div>
      <div ref={holder} class="plot" role="img" aria-label={`Learning curve: ${rest}`} data-testid="curve" data-points={metrics.learning_curve.length} />
      <figcaption class="quiet" data-rest={rest}>
        {rest}
      </figcaption>
    </figure>
  );
}
