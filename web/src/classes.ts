// One class an item, or several: how both are said, and by which figure a project's progress is told.

type Told = { class?: string | null; classes?: string[] | null };
type Guessed = { predicted_class?: string | null; predicted_classes?: string[] | null };

export const NOTHING = "nothing here";

/** Several by commas; of none that nothing is there. */
export const said = (classes: string[]): string => classes.join(", ") || NOTHING;

/** The class or the classes of an item or a label; null where there are none yet. */
export const classOf = (of: Told): string | null => (of.classes ? said(of.classes) : (of.class ?? null));

export const guessOf = (of: Guessed): string | null => (of.predicted_classes ? said(of.predicted_classes) : (of.predicted_class ?? null));

/** Of several classes, the differences: those that are said in addition, and those that are not. */
export function differences(from: string[], to: string[]): string {
  return [...to.filter((name) => !from.includes(name)).map((name) => `+ ${name}`), ...from.filter((name) => !to.includes(name)).map((name) => `− ${name}`)].join(", ");
}

interface Measured {
  accuracy?: number | null;
  accuracy_low?: number | null;
  accuracy_high?: number | null;
  mean_average_precision?: number | null;
  mean_average_precision_low?: number | null;
  mean_average_precision_high?: number | null;
}

/** The figure of a point or a round, and its interval: accuracy, or of several classes an item the mean average precision. */
export function figureOf(of: Measured | null | undefined): { name: string; value: number | null; low: number | null; high: number | null } {
  if (of?.mean_average_precision != null)
    return { name: "mean average precision", value: of.mean_average_precision, low: of.mean_average_precision_low ?? null, high: of.mean_average_precision_high ?? null };
  return { name: "accuracy", value: of?.accuracy ?? null, low: of?.accuracy_low ?? null, high: of?.accuracy_high ?? null };
}
