import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";

const BUILT = join(import.meta.dirname, "..", "..", "iot_platform", "api", "static");
interface Chunk {
  file: string;
  css?: string[];
  imports?: string[];
  isEntry?: boolean;
}
const manifest = JSON.parse(readFileSync(join(BUILT, ".vite", "manifest.json"), "utf8")) as Record<string, Chunk>;

/** Files that a chunk needs before it runs. */
function needed(name: string, found = new Set<string>()): Set<string> {
  const chunk = manifest[name]!;
  if (found.has(chunk.file)) return found;
  found.add(chunk.file);
  for (const style of chunk.css ?? []) found.add(style);
  for (const each of chunk.imports ?? []) needed(each, found);
  return found;
}
const size = (files: Iterable<string>) => [...files].reduce((sum, file) => sum + gzipSync(readFileSync(join(BUILT, file))).length, 0);

describe("size, gzip", () => {
  const entry = Object.entries(manifest).find(([, chunk]) => chunk.isEntry)![0];

  it("of the first page, login and live values, is at most 350 kB", () => {
    const bytes = size(needed(entry));
    console.log(`first page: ${(bytes / 1000).toFixed(1)} kB gzip`);
    expect(bytes).toBeLessThanOrEqual(350_000);
  });

  it("of all pages together stays below 450 kB", () => {
    expect(size(Object.values(manifest).flatMap((chunk) => [chunk.file, ...(chunk.css ?? [])]).filter((file, at, all) => all.indexOf(file) === at))).toBeLessThanOrEqual(450_000);
  });

  it("holds no inline script: the content security policy refuses it", () => {
    const page = readFileSync(join(BUILT, "index.html"), "utf8");
    expect(page.match(/<script(?![^>]*\bsrc=)/g)).toBeNull();
    expect(page.match(/\sstyle=|<style/g)).toBeNull();
  });
});
