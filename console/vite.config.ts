import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "../iot_platform/api/static",
    emptyOutDir: true,
    manifest: true,
    // The licences of what is in the files go with them.
    license: { fileName: "licenses.md" },
    // A file: in the page itself it would be a data: address, which the content security policy refuses for fonts and scripts.
    assetsInlineLimit: 0,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
  test: { include: ["src/**/*.test.ts", "built/**/*.test.ts"] },
});
