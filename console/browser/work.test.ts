import { readFileSync } from "node:fs";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { DEVICE, launch, PROJECT, TENANT, Visitor } from "./console";

let browser: Browser;
let visitor: Visitor;
beforeAll(async () => {
  browser = await launch();
  visitor = await Visitor.arrive(browser);
  await visitor.logIn("operator");
});
afterAll(() => browser.close());

const DONE = { timeout: 90_000 };

describe("by clicks alone", () => {
  it.each(["CSV", "Parquet"] as const)("a device's history is downloaded as %s", async (format) => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/p/${PROJECT}/d/${DEVICE}?range=24h&metric=temperature`);
    await page.locator(".plot canvas").waitFor();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: format, exact: true }).click()]);
    expect(download.suggestedFilename()).toMatch(new RegExp(`^${PROJECT}-${DEVICE}-\\d{8}-\\d{8}\\.${format.toLowerCase()}$`));
    const file = readFileSync(await download.path());
    if (format === "Parquet") {
      expect([file.subarray(0, 4).toString(), file.subarray(-4).toString()]).toEqual(["PAR1", "PAR1"]);
    } else {
      const lines = file.toString().trim().split(/\r?\n/);
      expect(lines[0]).toContain("time");
      expect(lines.length).toBeGreaterThan(100); // a value in two minutes, but for two hours
      expect(lines.slice(1).every((line) => line.includes(DEVICE))).toBe(true);
    }
    expect(visitor.errors).toEqual([]);
  });

  it("an incident is silenced with an end and a reason", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/incidents`);
    const row = page.getByRole("row", { name: /99 is above 85/ });
    await row.getByRole("button", { name: "Silence" }).click();
    const dialog = page.locator("dialog");
    await dialog.getByLabel("Until").fill("2020-01-01T00:00");
    await dialog.getByLabel("Reason").fill("boiler is being cleaned");
    await dialog.getByRole("button", { name: "Silence" }).click();
    await dialog.getByText("Choose a time to come.").waitFor();
    await dialog.getByLabel("Until").fill("2099-01-01T00:00");
    await visitor.check();
    await dialog.getByRole("button", { name: "Silence" }).click();
    await dialog.locator(".badge", { hasText: "Done" }).waitFor(DONE);
    await page.keyboard.press("Escape");
    await row.getByText("boiler is being cleaned").waitFor();
    await page.goto(`/t/${TENANT}/log`);
    await expect.poll(() => page.locator("table.rows").textContent()).toContain("boiler is being cleaned");
  });

  it("a rule is edited; what the server refuses is said at its field", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/incidents?rules=1`);
    await page.getByRole("button", { name: "Edit: Many duplicates" }).first().click();
    const dialog = page.locator("dialog");
    await dialog.getByLabel("Window, s").fill("-5");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.locator("[aria-invalid=true], [role=alert]").first().waitFor();
    expect(visitor.errors.splice(0)).toEqual([expect.stringContaining("status of 422")]); // Chromium tells of the refusal
    await visitor.check();
    await dialog.getByLabel("Window, s").fill("7200");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.locator(".badge", { hasText: "Done" }).waitFor(DONE);
    await page.keyboard.press("Escape");
    await page.getByText("window_seconds = 7200").waitFor();
  });

  it("a series is described twice, and its history has both", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/series?search=pressure`);
    for (const name of ["Pressure A", "Pressure B"]) {
      await page.getByRole("button", { name: /^Edit/ }).first().click();
      await page.getByLabel("Display name").fill(name);
      await page.getByRole("button", { name: "Save" }).click();
      await page.locator("dialog .badge", { hasText: "Done" }).waitFor(DONE);
      await page.keyboard.press("Escape");
      await page.locator("dialog").waitFor({ state: "detached" });
    }
    await page.getByRole("button", { name: /^Edit/ }).first().click();
    const changes = page.locator("dialog table.rows tbody tr");
    await expect.poll(() => changes.allTextContents()).toHaveLength(2);
    expect((await changes.allTextContents()).map((text) => /operator(Pressure .)/.exec(text)?.[1])).toEqual(["Pressure B", "Pressure A"]);
    await visitor.check();
    await page.keyboard.press("Escape");
  });

  it("messages are stored by a corrected rule, under a progress bar, and the rule is kept and ended", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/quarantine?reason=not_utf8`);
    await page.getByRole("button", { name: "Store after all" }).click();
    const dialog = page.locator("dialog");
    await dialog.getByLabel("Codecs").fill('[{"topic": "mtic/msg/client/realtime/+/+", "compression": "gzip"}]');
    await dialog.getByRole("button", { name: "Dry run" }).click();
    await dialog.getByText("would be stored: 30").waitFor();
    await dialog.getByLabel("Also for messages that come from now on").check();
    await visitor.check();
    await visitor.shoot("correction-en-light");
    await dialog.getByRole("button", { name: "Store them" }).click();
    await dialog.locator("progress").waitFor();
    await dialog.locator(".badge", { hasText: "Done" }).waitFor({ timeout: 110_000 });
    expect(await dialog.textContent()).toContain("30 messages left quarantine with 30 measurements");
    expect(await dialog.locator("progress").count()).toBe(0);
    await page.keyboard.press("Escape");
    const corrections = page.getByRole("region", { name: "Corrected rules" });
    await corrections.getByText("and from now on").waitFor();
    await visitor.check();
    await corrections.getByRole("button", { name: "End" }).click();
    await page.locator("dialog .badge", { hasText: "Done" }).waitFor(DONE);
    await page.keyboard.press("Escape");
    await corrections.getByText("ended by").waitFor();
    await page.goto(`/t/${TENANT}?search=zipped`);
    await page.locator(".series-row").getByText("flow").waitFor();
  }, 240_000);

  it("and in Chinese the log, a refusal and the way of a message say no English sentence", async () => {
    const chinese = await Visitor.arrive(browser, { language: "zh-CN" });
    const { page } = chinese;
    await chinese.logIn("operator", `/t/${TENANT}/log`);
    await page.locator("table.rows td").first().waitFor();
    expect(await chinese.english()).toEqual([]);
    await page.goto(`/t/${TENANT}/p/${PROJECT}/d/${DEVICE}`);
    await page.locator(".messages").getByRole("button", { name: "追踪" }).first().click();
    await page.locator("dialog .trace li").nth(3).waitFor();
    expect(await chinese.english()).toEqual([]);
    await page.goto(`/t/${TENANT}/quarantine`);
    await page.getByRole("button", { name: "载荷" }).first().click();
    await page.locator("dialog pre").waitFor();
    expect(await chinese.english()).toEqual([]);
    await chinese.context.close();
  });
});
