/** Texts in the viewer's language: i18next on the one catalogue. */
import i18next from "i18next";
import { initReactI18next, useTranslation } from "react-i18next";

import { catalogue, type Key } from "./catalogue";

export type Language = "en" | "zh-CN";
export type { Key };
const STORED = "iot-language";

function resources(at: 0 | 1): { translation: Record<string, string> } {
  return { translation: Object.fromEntries(Object.entries(catalogue).map(([key, texts]) => [key, texts[at]])) };
}

/** What was chosen here before, else what the browser prefers. */
export function preferredLanguage(stored: string | null, browser: readonly string[]): Language {
  if (stored === "en" || stored === "zh-CN") return stored;
  const first = browser.find((language) => /^(zh|en)\b/i.test(language));
  return first?.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
}

export function startTexts(): void {
  void i18next.use(initReactI18next).init({
    lng: preferredLanguage(localStorage.getItem(STORED), navigator.languages),
    fallbackLng: false,
    resources: { en: resources(0), "zh-CN": resources(1) },
    keySeparator: false,
    nsSeparator: false,
    returnNull: false,
    interpolation: { escapeValue: false }, // React escapes
    initAsync: false,
  });
  document.documentElement.lang = i18next.language;
}

export function setLanguage(language: Language): void {
  localStorage.setItem(STORED, language);
  document.documentElement.lang = language;
  void i18next.changeLanguage(language);
}

export interface Texts {
  t: (key: Key, values?: Record<string, string | number>) => string;
  /** The text of a key that was put together, or what else to show. */
  maybe: (key: string, otherwise: string) => string;
  language: Language;
}

export function useTexts(): Texts {
  const { t, i18n } = useTranslation();
  return {
    t: (key, values) => t(key, values ?? {}),
    maybe: (key, otherwise) => (Object.hasOwn(catalogue, key) ? t(key as Key) : otherwise),
    language: i18n.language as Language,
  };
}
