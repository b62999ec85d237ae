/** Text from devices: what would hide, reorder or move is named instead of obeyed. */

export interface Part {
  text: string;
  /** Whether `text` is the name of a character (U+202E) and not itself. */
  named: boolean;
}

/**
 * C0 and C1 controls, soft hyphen, Arabic letter mark, zero-width characters, bidi controls, line and paragraph separator, invisible
 * operators, BOM, interlinear annotation, tags, and lone surrogates.
 */
const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e007f}]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/gu;

/** The text cut into pieces that can be shown and pieces that must be named. `keep` are characters to leave alone, e.g. line ends. */
export function visibleParts(text: string, keep = ""): Part[] {
  const parts: Part[] = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (keep.includes(match[0])) continue;
    if (match.index > end) parts.push({ text: text.slice(end, match.index), named: false });
    parts.push({ text: nameOf(match[0]), named: true });
    end = match.index + match[0].length;
  }
  if (end < text.length) parts.push({ text: text.slice(end), named: false });
  return parts;
}

/** As plain text, for titles and labels: names in ⟨⟩. */
export function visible(text: string): string {
  return visibleParts(text)
    .map((part) => (part.named ? `⟨${part.text}⟩` : part.text))
    .join("");
}

function nameOf(character: string): string {
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** zh-CN where the text has Han characters: without it browsers draw them with a Japanese face. */
export function languageOf(text: string): "zh-CN" | undefined {
  return /\p{Script=Han}/u.test(text) ? "zh-CN" : undefined;
}

export interface HexLine {
  offset: string;
  hex: string;
  text: string;
}

/** As `hexdump -C`: sixteen bytes a line; what is no printable ASCII is a dot. */
export function hexLines(bytes: Uint8Array): HexLine[] {
  const lines: HexLine[] = [];
  for (let start = 0; start < bytes.length; start += 16) {
    const row = [...bytes.subarray(start, start + 16)];
    lines.push({
      offset: start.toString(16).padStart(8, "0"),
      hex: row.map((byte) => byte.toString(16).padStart(2, "0")).join(" "),
      text: row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join(""),
    });
  }
  return lines;
}

/** The bytes of a base64 text. */
export function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** The text that the bytes are in UTF-8, or null where they are none. */
export function utf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}
