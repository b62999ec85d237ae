import { readFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";
import { expect, it } from "vitest";

it("the API's types are those of its description: npm run api-types", { timeout: 60_000 }, async () => {
  const made = astToString(await openapiTS(new URL("../openapi.json", import.meta.url)));
  expect(readFileSync(new URL("../src/api/schema.d.ts", import.meta.url), "utf8")).toContain(made.trim());
});
