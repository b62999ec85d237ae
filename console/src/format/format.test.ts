import { describe, expect, it } from "vitest";

import { exactValue, formatBytes, formatCount, formatShare, formatValue, parseNumber } from "./number";
import { formatAge, formatDuration, formatTime, formatUtc, fromInput, iso, milliseconds, toInput } from "./time";
import { bytesOf, hexLines, languageOf, utf8, visible, visibleParts } from "./visible";

const MOMENT = Date.UTC(2026, 10, 30, 1, 2, 3, 45);

describe("values", () => {
  it.each([
    [21.5, null, "21.5"],
    [1013.25, null, "1013.25"],
    [20000.123456, null, "20,000.12"],
    [123456789.25, null, "123,456,789.25"],
    [12345678, null, "12,345,678"],
    [1700000000000, null, "1,700,000,000,000"],
    [-9007199254740991, null, "−9,007,199,254,740,991"],
    [Number.MAX_SAFE_INTEGER + 1, null, "9.0072e+15"],
    [-3.25, null, "−3.25"],
    [0, null, "0"],
    [0.1 + 0.2, null, "0.3"],
    [0.00001234, null, "1.234e−5"],
    [6.02214076e23, null, "6.0221e+23"],
    [null, null, "–"],
    [NaN, null, "–"],
    [null, "open", "open"],
    [9007199254740992, "9007199254740993", "9007199254740993"],
  ])("%s, %s is written %s", (value, text, written) => expect(formatValue(value, text, "en")).toBe(written));

  it("has every digit that came for those who look closer", () => {
    expect(exactValue(9223372036854775807, "9223372036854775807")).toBe("9223372036854775807");
    expect(exactValue(0.1 + 0.2, null)).toBe("0.30000000000000004");
    expect(exactValue(null, "open")).toBe("open");
    expect(exactValue(null, null)).toBeUndefined();
  });

  it("never shows a share as whole that is not", () => {
    expect(formatShare(0.9999, "en")).toBe("> 99.9 %");
    expect(formatShare(1, "en")).toBe("100 %");
    expect(formatShare(0.0001, "en")).toBe("< 0.1 %");
    expect(formatShare(0, "en")).toBe("0 %");
  });

  it("counts and sizes", () => {
    expect(formatCount(1234567, "en")).toBe("1,234,567");
    expect(formatCount(undefined, "en")).toBe("–");
    expect(formatBytes(1023, "en")).toBe("1,023 B");
    expect(formatBytes(65536, "en")).toBe("64 KiB");
  });

  it.each([["21.5", 21.5], ["-3", -3], ["−3", -3], [" 1e3 ", 1000], [".5", 0.5], ["", null], ["1,5", undefined], ["0x10", undefined], ["NaN", undefined], ["1e999", undefined]])(
    "reads %j as %s", (typed, number) => expect(parseNumber(typed)).toBe(number),
  );
});

describe("times", () => {
  it("are shown in the zone, and in UTC", () => {
    expect(formatTime(MOMENT, "second", "Asia/Shanghai")).toBe("2026-11-30 09:02:03");
    expect(formatTime(MOMENT, "minute", "America/New_York")).toBe("2026-11-29 20:02");
    expect(formatTime(MOMENT, "millisecond", "UTC")).toBe("2026-11-30 01:02:03.045");
    expect(formatUtc(MOMENT)).toBe("2026-11-30 01:02:03.045 UTC");
    expect(formatTime(Date.UTC(2026, 0, 1), "second", "UTC")).toBe("2026-01-01 00:00:00");
  });

  it("survive an input and back", () => {
    expect(fromInput(toInput(MOMENT))).toBe(MOMENT - 45);
    expect(fromInput("")).toBeNull();
    expect(milliseconds(iso(MOMENT))).toBe(MOMENT);
    expect(milliseconds("nonsense")).toBeNull();
  });

  it("are ages in the language's words", () => {
    expect(formatDuration(0.42, "en")).toBe("0.4 sec");
    expect(formatDuration(59.6, "en")).toBe("60 sec");
    expect(formatDuration(3700, "en")).toBe("1 hr");
    expect(formatDuration(86400 * 3, "zh-CN")).toBe("3天");
    expect(formatAge(-5000, "en")).toBe("0 sec");
  });
});

describe("text of devices", () => {
  it("names what hides, reorders or moves", () => {
    expect(visible("a\u202eb")).toBe("a⟨U+202E⟩b");
    expect(visible("\u0000\u001b[31m\u200b\ufeff\u2066\u{e0041}")).toBe("⟨U+0000⟩⟨U+001B⟩[31m⟨U+200B⟩⟨U+FEFF⟩⟨U+2066⟩⟨U+E0041⟩");
    expect(visible("\ud800x")).toBe("⟨U+D800⟩x");
    expect(visible("温度 😀 é")).toBe("温度 😀 é");
  });

  it("keeps what it is told to keep", () => {
    expect(visibleParts("a\n\tb\r", "\n\t").map((part) => part.text)).toEqual(["a\n\tb", "U+000D"]);
  });

  it("knows Chinese", () => {
    expect(languageOf("一号锅炉")).toBe("zh-CN");
    expect(languageOf("boiler")).toBeUndefined();
  });

  it("shows bytes as hexdump does", () => {
    const bytes = bytesOf(btoa("\x00\x7fABCDEFGHIJKLMNOP"));
    expect(hexLines(bytes)).toEqual([
      { offset: "00000000", hex: "00 7f 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e", text: "..ABCDEFGHIJKLMN" },
      { offset: "00000010", hex: "4f 50", text: "OP" },
    ]);
    expect(utf8(Uint8Array.of(0xff, 0xfe))).toBeNull();
    expect(utf8(new TextEncoder().encode("\ufeff{}"))).toBe("\ufeff{}");
  });
});
