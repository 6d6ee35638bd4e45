// What the points are coloured by: a colour number for each, and what the numbers mean.

import { count, percent } from "../format";
import { UNKNOWN, type MapData } from "./data";

export type By = "class" | "guess" | "doubt" | "loss" | "arm" | "round";
export const BYS: Record<By, string> = { class: "class", guess: "the head’s guess", doubt: "doubt", loss: "pretext loss", arm: "arm", round: "round" };

export interface Group {
  name: string;
  colour: string;
  count: number;
  number: number; // in `Colouring.numbers`
}

/** numbers: of each point, into `palette`; 0 is for those about which nothing is known, and drawn below all others. */
export interface Colouring {
  numbers: Uint8Array;
  palette: string[];
  groups: Group[] | null; // null: it is a ramp
  ends: [string, string];
  known: number;
}

// Okabe and Ito's first, then Tol's: people who are colour-blind tell them apart. On white and on black.
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#882255", "#44aa99", "#332288", "#999933", "#aa4499", "#6b6b6b"];
const DARK = ["#56b4e9", "#f0a04b", "#2fc79b", "#e39cc4", "#f0e442", "#8c9eff", "#ff8a80", "#88ccee", "#b39ddb", "#ddcc77", "#ce93d8", "#bdbdbd"];
const RAMP_LIGHT = ["#fde0a8", "#f9a66b", "#e8615c", "#b5357b", "#6a1a86", "#26105e"];
const RAMP_DARK = ["#3b2a7a", "#7b2f8e", "#c1426f", "#f0774f", "#fbb75a", "#fdf3b0"];
const STEPS = 64;

function ramp(stops: string[]): string[] {
  const parts = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return Array.from({ length: STEPS }, (_, step) => {
    const place = (step / (STEPS - 1)) * (stops.length - 1);
    const [low, share] = [Math.min(stops.length - 2, Math.floor(place)), place - Math.min(stops.length - 2, Math.floor(place))];
    const mixed = parts[low]!.map((part, index) => Math.round(part + share * (parts[low + 1]![index]! - part)));
    return `#${mixed.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
  });
}

function categories(data: MapData, dark: boolean, rest: string, names: string[], of: (row: number) => number): Colouring {
  const counts = new Array<number>(names.length).fill(0);
  for (let row = 0; row < data.items; row++) if (of(row) >= 0) counts[of(row)]!++;
  const colours = dark ? DARK : LIGHT;
  // The commonest have colours of their own; the others share the last.
  const order = names.map((_, index) => index).filter((index) => counts[index]! > 0).sort((a, b) => counts[b]! - counts[a]!);
  const number = new Uint8Array(names.length);
  order.forEach((index, place) => (number[index] = 1 + Math.min(place, colours.length - 1)));
  const numbers = new Uint8Array(data.items);
  for (let row = 0; row < data.items; row++) if (of(row) >= 0) numbers[row] = number[of(row)]!;
  const own = order.length > colours.length ? order.slice(0, colours.length - 1) : order;
  const groups = own.map((index, place) => ({ name: names[index]!, colour: colours[place]!, count: counts[index]!, number: 1 + place }));
  const others = order.slice(own.length);
  if (others.length) groups.push({ name: `${others.length} others`, colour: colours.at(-1)!, count: others.reduce((sum, index) => sum + counts[index]!, 0), number: colours.length });
  return { numbers, palette: [rest, ...colours], groups, ends: ["", ""], known: counts.reduce((sum, each) => sum + each, 0) };
}

function gradient(data: MapData, dark: boolean, rest: string, ends: [string, string], of: (row: number) => number): Colouring {
  const numbers = new Uint8Array(data.items);
  let known = 0;
  for (let row = 0; row < data.items; row++) {
    const value = of(row);
    if (value < 0) continue;
    known++;
    numbers[row] = 1 + Math.min(STEPS - 1, Math.floor(value * STEPS));
  }
  return { numbers, palette: [rest, ...ramp(dark ? RAMP_DARK : RAMP_LIGHT)], groups: null, ends, known };
}

export function coloured(data: MapData, by: By, dark: boolean): Colouring {
  const rest = dark ? "#4a4f57" : "#c3c6c4";
  if (by === "class") return categories(data, dark, rest, data.classes, (row) => data.class[row]!);
  if (by === "guess") return categories(data, dark, rest, data.classes, (row) => data.guess[row]!);
  if (by === "arm") return categories(data, dark, rest, data.arms, (row) => data.arm[row]! || -1);
  if (by === "doubt") return gradient(data, dark, rest, ["sure", "in doubt"], (row) => (data.doubt[row] === UNKNOWN ? -1 : data.doubt[row]! / 254));
  if (by === "loss") return gradient(data, dark, rest, ["lowest", "highest"], (row) => (data.loss[row] === UNKNOWN ? -1 : data.loss[row]! / 250));
  let newest = 1;
  for (const round of data.round) newest = Math.max(newest, round);
  return gradient(data, dark, rest, ["round 1", `round ${count(newest)}`], (row) => (data.round[row] ? (data.round[row]! - 1) / Math.max(1, newest - 1) : -1));
}

/** What is known of a point, in a line. */
export function said(data: MapData, row: number): string {
  const parts: string[] = [];
  const [state, own, guess] = [data.states[data.state[row]!], data.class[row]!, data.guess[row]!];
  if (own >= 0) parts.push(state === "test" ? `${data.classes[own]}, of the test split` : `labeled ${data.classes[own]}`);
  else parts.push(state === "available" ? "to be labeled" : (state as string));
  if (data.arm[row]) parts.push(`${data.arms[data.arm[row]!]} in round ${data.round[row]}`);
  if (guess >= 0 && own < 0) parts.push(`guess: ${data.classes[guess]}`);
  if (data.doubt[row] !== UNKNOWN && own < 0) parts.push(`doubt ${(data.doubt[row]! / 254).toFixed(2)}`);
  if (data.loss[row] !== UNKNOWN) parts.push(`loss above ${percent(data.loss[row]! / 250, 0)}`);
  return parts.join(" · ");
}
