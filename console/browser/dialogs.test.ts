import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { DEVICE, launch, PROJECT, TENANT, Visitor } from "./console";

let browser: Browser;
let visitor: Visitor;
beforeAll(async () => {
  browser = await launch();
  visitor = await Visitor.arrive(browser);
  await visitor.logIn("admin");
});
afterAll(() => browser.close());

describe("dialogs", () => {
  it("show a payload that is not what it seems, as text and in hex", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/quarantine`);
    await page.getByRole("row", { name: /delimiter at character/ }).getByRole("button", { name: "Payload" }).click();
    await page.locator("dialog pre").waitFor();
    expect(await page.locator("dialog pre .hidden-character").first().textContent()).toBe("U+202E");
    await visitor.check();
    await visitor.shoot("payload-en-light");
    await page.getByRole("button", { name: "Hex" }).click();
    expect(await page.locator("dialog pre").textContent()).toContain("e2 80 ae");
    await page.keyboard.press("Escape");
    expect(await page.locator("dialog").count()).toBe(0);
  });

  it("trace a message from receipt to its measurements", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/p/${PROJECT}/d/${DEVICE}`);
    await page.locator(".messages").getByRole("button", { name: "Trace" }).first().click();
    await page.locator("dialog .trace li").nth(3).waitFor();
    expect(await page.locator("dialog .trace").textContent()).toContain("measurements are stored as it says");
    await visitor.check();
    await visitor.shoot("trace-en-light");
    await page.keyboard.press("Escape");
  });

  it("try a corrected rule, then store what was refused, under the user's eyes and in the log", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/quarantine`);
    await page.getByRole("button", { name: "Store after all" }).click();
    await page.getByLabel("Time zone").fill("Asia/Shanghai");
    await page.getByRole("button", { name: "Dry run" }).click();
    await page.getByText(/still refused/).waitFor();
    await visitor.check();
    await visitor.shoot("replay-en-light");
    expect(await page.getByRole("button", { name: "Store them" }).isDisabled()).toBe(true);
    await page.keyboard.press("Escape");
  });

  it("give a series a name, a unit and a range, which the live page then has", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/series?search=temperature`);
    await page.getByRole("button", { name: /^Edit/ }).first().click();
    await page.getByLabel("Display name").fill("主轴温度 spindle");
    await page.getByLabel("Unit").fill("°C");
    await page.getByLabel("Valid from").fill("1,5");
    await page.getByLabel("Valid to").fill("60");
    await page.getByRole("button", { name: "Save" }).click();
    expect(await page.getByText("This is no number").count()).toBe(1);
    await page.getByLabel("Valid from").fill("0");
    await visitor.check();
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator("dialog .badge", { hasText: "Done" }).waitFor({ timeout: 60_000 });
    await visitor.check();
    await visitor.shoot("series-info-en-light");
    await page.goto(`/t/${TENANT}?search=temperature`);
    await page.getByText("主轴温度 spindle").waitFor();
    expect(await page.locator(".series-row .unit").first().textContent()).toContain("°C");
    await page.goto(`/t/${TENANT}/log`);
    await expect.poll(() => page.locator("table.rows").textContent()).toContain("Series described");
    await visitor.shoot("log-done-en-light");
  });

  it("change a rule of the tenant and take it back", async () => {
    const { page } = visitor;
    await page.goto(`/t/${TENANT}/incidents?rules=1`);
    await page.getByRole("button", { name: "Edit: Silent device" }).first().click();
    await page.getByLabel("Threshold").fill("many");
    await page.getByRole("button", { name: "Save" }).click();
    expect(await page.getByText("This is no number").count()).toBe(1);
    await page.getByLabel("Threshold").fill("12");
    await visitor.check();
    await visitor.shoot("rule-en-light");
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator("dialog .badge", { hasText: "Done" }).waitFor({ timeout: 60_000 });
    await page.keyboard.press("Escape");
    await page.getByText("this tenant's").first().waitFor();
  });

  it("add a user, who can log in", async () => {
    const { page } = visitor;
    const name = `user${Date.now()}`;
    await page.goto("/admin");
    await page.getByRole("button", { name: "Add user" }).click();
    await page.getByLabel("User name").fill(name);
    await page.getByLabel("Password").fill("correct horse battery");
    await page.locator("dialog select").first().selectOption("viewer");
    await visitor.check();
    await visitor.shoot("user-en-light");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("cell", { name, exact: true }).waitFor();
    const other = await Visitor.arrive(browser);
    await other.logIn(name);
    await other.context.close();
  });
});
