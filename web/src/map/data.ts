// The map as the API sends it (docs/map.md): columns of numbers, used where they lie.

import { ask, withQuery } from "../api";

export interface MapData {
  items: number;
  scoreRun: string;
  head: number | null;
  classes: string[];
  arms: string[];
  states: string[];
  id: Float64Array;
  x: Uint16Array;
  y: Uint16Array;
  loss: Uint8Array;
  guess: Int16Array;
  doubt: Uint8Array;
  state: Uint8Array;
  class: Int16Array;
  arm: Uint8Array;
  round: Uint16Array;
}

export const SIDE = 65535;
export const UNKNOWN = 255;

const ARRAYS = { float64: Float64Array, uint16: Uint16Array, int16: Int16Array, uint8: Uint8Array };

/** about: where an item may have several classes, the one by which they are told apart. */
export async function loadMap(project: string, about: string | null): Promise<MapData> {
  return unpack(await (await ask("GET", withQuery(`/projects/${project}/map`, { class: about }))).arrayBuffer());
}

export function unpack(data: ArrayBuffer): MapData {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length))) as {
    items: number; score_run: string; head: number | null; classes: string[]; arms: string[]; states: string[]; columns: { name: string; type: keyof typeof ARRAYS }[];
  };
  const columns: Record<string, unknown> = {};
  let at = 4 + length;
  for (const { name, type } of header.columns) {
    const column = new ARRAYS[type](data, at, header.items);
    columns[name === "item" ? "id" : name] = column;
    at += Math.ceil(column.byteLength / 8) * 8;
  }
  return { ...header, scoreRun: header.score_run, ...columns } as unknown as MapData;
}

const DIGITS = "0123456789abcdefghjkmnpqrstvwxyz";

/** The item's id, of its row number: Crockford base 32. */
export function itemId(number: number): string {
  let digits = "";
  do {
    digits = DIGITS[number % 32] + digits;
    number = Math.floor(number / 32);
  } while (number > 0);
  return `i_${digits}`;
}

/** Finds the point nearest to a place: points by cells of a grid, as one list and where each cell begins in it. */
export class Finder {
  private static readonly CELLS = 256;
  private readonly starts: Uint32Array;
  private readonly order: Uint32Array;

  constructor(private readonly data: MapData) {
    const cells = Finder.CELLS;
    this.starts = new Uint32Array(cells * cells + 1);
    this.order = new Uint32Array(data.items);
    for (let row = 0; row < data.items; row++) this.starts[this.cellOf(row) + 1]!++;
    for (let cell = 0; cell < cells * cells; cell++) this.starts[cell + 1]! += this.starts[cell]!;
    const next = this.starts.slice();
    for (let row = 0; row < data.items; row++) this.order[next[this.cellOf(row)]!++] = row;
  }

  private cellOf(row: number): number {
    return (this.data.y[row]! >> 8) * Finder.CELLS + (this.data.x[row]! >> 8);
  }

  /** The row of the nearest point within `radius`, or -1. */
  nearest(x: number, y: number, radius: number): number {
    const cell = (value: number) => Math.max(0, Math.min(Finder.CELLS - 1, Math.floor(value / 256)));
    let [best, least] = [-1, radius * radius];
    for (let cy = cell(y - radius); cy <= cell(y + radius); cy++) {
      for (let cx = cell(x - radius); cx <= cell(x + radius); cx++) {
        const at = cy * Finder.CELLS + cx;
        for (let index = this.starts[at]!; index < this.starts[at + 1]!; index++) {
          const row = this.order[index]!;
          const distance = (this.data.x[row]! - x) ** 2 + (this.data.y[row]! - y) ** 2;
          if (distance <= least) [best, least] = [row, distance];
        }
      }
    }
    return best;
  }
}

export type Corner = [number, number];

/** The rows within a closed outline, by the even-odd rule. */
export function rowsInside(data: MapData, outline: Corner[]): number[] {
  const [xs, ys] = [outline.map(([x]) => x), outline.map(([, y]) => y)];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const found: number[] = [];
  for (let row = 0; row < data.items; row++) {
    const [x, y] = [data.x[row]!, data.y[row]!];
    if (x < left || x > right || y < low || y > high) continue;
    let inside = false;
    for (let index = 0, before = outline.length - 1; index < outline.length; before = index++) {
      const [[x0, y0], [x1, y1]] = [outline[index]!, outline[before]!];
      if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) inside = !inside;
    }
    if (inside) found.push(row);
  }
  return found;
}

/** At most `most` corners of it, evenly along it: an address holds no more. */
export function simplified(outline: Corner[], most = 60): Corner[] {
  const step = Math.max(1, outline.length / most);
  const kept: Corner[] = [];
  for (let at = 0; at < outline.length; at += step) {
    const [x, y] = outline[Math.floor(at)]!;
    kept.push([Math.round(x), Math.round(y)]);
  }
  return kept;
}
