/** Light, dark, or as the system has it. */
import { useSyncExternalStore } from "react";

export type Choice = "system" | "light" | "dark";
const STORED = "iot-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

function stored(): Choice {
  const choice = localStorage.getItem(STORED);
  return choice === "light" || choice === "dark" ? choice : "system";
}

export function startTheme(): void {
  apply();
  dark.addEventListener("change", apply);
}

export function setTheme(choice: Choice): void {
  localStorage.setItem(STORED, choice);
  apply();
}

function apply(): void {
  const choice = stored();
  document.documentElement.dataset.theme = choice === "system" ? (dark.matches ? "dark" : "light") : choice;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The theme that is shown. */
export function useTheme(): string {
  return useSyncExternalStore(subscribe, () => document.documentElement.dataset.theme ?? "light");
}

export function useThemeChoice(): Choice {
  return useSyncExternalStore(subscribe, stored);
}
