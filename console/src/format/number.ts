/** Numbers as a person reads them. Ids are never numbers: they are shown as the text that came. */

const formats = new Map<string, Intl.NumberFormat>();

function format(language: string, options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = language + JSON.stringify(options);
  let found = formats.get(key);
  if (!found) formats.set(key, (found = new Intl.NumberFormat(language, options)));
  return found;
}

export const NOTHING = "–";

/** A double holds this many decimal digits for certain. */
const EXACT_DIGITS = 15;

/**
 * A measured value. A whole number that a double holds has all its digits, and a larger one whose digits did not come as text an exponent;
 * a fraction has seven significant digits, but never fewer than its whole part and two decimals. What a double cannot hold, and text, came
 * as text and is shown as it is.
 */
export function formatValue(value: number | null | undefined, text: string | null | undefined, language: string): string {
  if (text !== null && text !== undefined) return text;
  if (value === null || value === undefined || Number.isNaN(value)) return NOTHING;
  const size = Math.abs(value);
  if (size !== 0 && (size > Number.MAX_SAFE_INTEGER || size < 1e-4)) return value.toExponential(4).replace(/\.?0+e/, "e").replaceAll("-", "−");
  const digits = Number.isInteger(value) ? 16 : Math.min(EXACT_DIGITS, Math.max(7, Math.floor(Math.log10(size)) + 3));
  return format(language, { maximumSignificantDigits: digits, useGrouping: size >= 10000 }).format(value).replace("-", "−");
}

/** All digits of a value, for those who look closer: those that came as text, not what a double made of them. */
export function exactValue(value: number | null | undefined, text: string | null | undefined): string | undefined {
  return text ?? (value === null || value === undefined ? undefined : String(value));
}

/** A count, with separators. */
export function formatCount(count: number | null | undefined, language: string): string {
  return count === null || count === undefined ? NOTHING : format(language, { maximumFractionDigits: 0 }).format(count);
}

/** A share of 0 … 1 in per cent; never rounded to 0 % or 100 % when it is not. */
export function formatShare(share: number, language: string): string {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return `${format(language, { maximumFractionDigits: 1 }).format(share * 100)} %`;
}

/** A number of bytes, in units of 1024. */
export function formatBytes(bytes: number, language: string): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${format(language, { maximumFractionDigits: unit ? 1 : 0 }).format(size)} ${units[unit]}`;
}

/** A number that a person typed; null for nothing, undefined for what is none. Decimal comma and thousands separators are refused. */
export function parseNumber(typed: string): number | null | undefined {
  const text = typed.trim().replace("−", "-");
  if (text === "") return null;
  const number = Number(text);
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) && Number.isFinite(number) ? number : undefined;
}
