// Numbers and times as people read them.

export const count = (number: number): string => number.toLocaleString("en");

export const percent = (share: number | null | undefined, digits = 1): string => (share == null ? "–" : `${(100 * share).toFixed(digits)}\u00a0%`);

export const plural = (number: number, one: string, many = `${one}s`): string => `${count(number)} ${number === 1 ? one : many}`;

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.max(1, Math.round(1000 * seconds))} ms`;
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function clock(time: string | null): string {
  if (!time) return "–";
  const [at, now] = [new Date(time), new Date()];
  const day: Intl.DateTimeFormatOptions = at.toDateString() === now.toDateString() ? {} : { month: "short", day: "numeric" };
  const year: Intl.DateTimeFormatOptions = at.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return at.toLocaleString("en", { ...year, ...day, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

export function ago(time: string): string {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  return seconds < 45 ? "just now" : `${duration(seconds)} ago`;
}

export const words = (name: string): string => name.replaceAll("_", " ");

/** Three figures that count, whatever the size. */
export const figure = (number: number): string => (number !== 0 && Math.abs(number) < 0.001 ? number.toExponential(1) : number.toPrecision(3));

export const size = (bytes: number): string => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`);
