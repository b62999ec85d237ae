import { defineConfig } from "vitest/config";

/** What `make test-console` runs against a console that pytest has started; CONSOLE_URL and what else it sets is in browser/console.ts. */
export default defineConfig({
  test: { include: ["browser/**/*.test.ts"], fileParallelism: false, testTimeout: 120_000, hookTimeout: 120_000 },
});
