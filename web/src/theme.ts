// Light or dark: as the system has it, until somebody says otherwise.

import { effect, signal } from "@preact/signals";

type Theme = "light" | "dark";
const dark = matchMedia("(prefers-color-scheme: dark)");
const system = (): Theme => (dark.matches ? "dark" : "light");
const KEY = "shortlist.theme";

const known = localStorage.getItem(KEY);
export const theme = signal<Theme>(known === "light" || known === "dark" ? known : system());
dark.addEventListener("change", () => {
  if (!localStorage.getItem(KEY)) theme.value = system();
});
effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  if (theme.value === system()) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, theme.value);
}
