import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

import { catalogue } from "./catalogue";

const SOURCES = join(import.meta.dirname, "..");
const code = readdirSync(SOURCES, { recursive: true, encoding: "utf8" })
  .filter((name) => /\.tsx?$/.test(name) && !name.endsWith(".test.ts") && !name.endsWith("catalogue.ts") && !name.endsWith("schema.d.ts"))
  .map((name) => readFileSync(join(SOURCES, name), "utf8"))
  .join("\n");
const entries = Object.entries(catalogue);
const names = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]).sort();
/** Beginnings of keys that code puts together, as in t(`role.${role}`). */
const families = [...code.matchAll(/`([a-z-]+(?:\.[a-z-]+)*\.)\$\{/g)].map((match) => match[1]!);

describe("catalogue", () => {
  it.each(entries)("%s has both languages, with the same values in them", (_, [english, chinese]) => {
    expect(english.trim()).not.toBe("");
    expect(chinese.trim()).not.toBe("");
    expect(names(chinese)).toEqual(names(english));
  });

  it("has Chinese in the Chinese column and none in the English one", () => {
    const same = new Set(["page.log", "payload.hex"]);
    const wrong = entries.filter(([key, [english, chinese]]) => /\p{Script=Han}/u.test(english) || (!/\p{Script=Han}/u.test(chinese) && !same.has(key) ));
    expect(wrong.map(([key]) => key).filter((key) => key !== "action.of")).toEqual([]);
  });

  it("holds nothing that no page shows", () => {
    const unused = entries.map(([key]) => key).filter((key) => !code.includes(`"${key}"`) && !families.some((family) => key.startsWith(family)));
    expect(unused).toEqual([]);
  });
});

describe("pages", () => {
  it("have no text of their own", () => {
    // What stands between tags or in attributes that are read out, in letters.
    const own = [...code.matchAll(/(?:>|aria-label="|placeholder="|title=")\s*([A-Z][a-z]+(?: [a-z]+)*)\s*(?:<|")/g)].map((match) => match[1]);
    expect(own.filter((text) => !["Parquet", "Promise"].includes(text ?? ""))).toEqual([]);
  });
});
