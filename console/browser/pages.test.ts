import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { DEVICE, launch, PROJECT, TENANT, URL_, Visitor, type Looks } from "./console";

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

const PAGES: [name: string, path: string, ready: string][] = [
  ["live", `/t/${TENANT}`, ".series-row .c-value"],
  ["device", `/t/${TENANT}/p/${PROJECT}/d/${DEVICE}?range=24h`, ".plot canvas"],
  ["balance", `/t/${TENANT}/balance`, ".hours td"],
  ["quarantine", `/t/${TENANT}/quarantine`, "table.rows td"],
  ["incidents", `/t/${TENANT}/incidents?state=all`, ".rows td, .nothing"],
  ["rules", `/t/${TENANT}/incidents?rules=1`, "table.rows td"],
  ["series", `/t/${TENANT}/series`, "table.rows td"],
  ["log", `/t/${TENANT}/log`, ".rows td, .nothing"],
  ["admin", "/admin", "table.rows td"],
];
const LOOKS: [string, Looks][] = [
  ["en-light", {}],
  ["zh-dark", { language: "zh-CN", theme: "dark" }],
  ["zh-phone", { language: "zh-CN", phone: true }],
];

describe.each(LOOKS)("%s", (look, looks) => {
  let visitor: Visitor;
  beforeAll(async () => {
    visitor = await Visitor.arrive(browser, looks);
    await visitor.page.goto("/login");
    await visitor.page.locator("form").waitFor();
    await visitor.check();
    await visitor.shoot(`login-${look}`);
    await visitor.logIn("admin");
  });
  afterAll(() => visitor.context.close());

  it.each(PAGES)("%s: axe finds nothing, nothing is cut off, nothing fails", async (name, path, ready) => {
    await visitor.page.goto(path);
    await visitor.page.locator(ready).first().waitFor();
    expect(await visitor.page.locator("html").getAttribute("lang")).toBe(looks.language ?? "en");
    await visitor.page.waitForTimeout(name === "live" ? 4000 : 300); // for the picture: trends, the chart's lines
    await visitor.check();
    if (looks.language === "zh-CN") expect(await visitor.english()).toEqual([]);
    await visitor.shoot(`${name}-${look}`);
  });
});

describe("somebody", () => {
  it("who is not logged in comes to the login, and back to where he wanted to", async () => {
    const visitor = await Visitor.arrive(browser);
    await visitor.page.goto(`/t/${TENANT}/balance?hours=72`);
    await visitor.page.waitForURL(/\/login\?return_to=/);
    await visitor.page.locator("input[autocomplete=username]").fill("viewer");
    await visitor.page.locator("input[type=password]").fill("not the password");
    await visitor.page.keyboard.press("Enter");
    await expect.poll(() => visitor.page.locator("[role=alert]").textContent()).toContain("Name or password is wrong");
    await visitor.logIn("viewer", `/t/${TENANT}/balance?hours=72`);
    expect(new URL(visitor.page.url()).search).toBe("?hours=72");
    await visitor.context.close();
  });

  it("finds no way out through return_to", async () => {
    const visitor = await Visitor.arrive(browser);
    await visitor.page.goto("/login?return_to=//example.org/");
    await visitor.page.locator("input[autocomplete=username]").fill("viewer");
    await visitor.page.locator("input[type=password]").fill(process.env.CONSOLE_PASSWORD!);
    await visitor.page.keyboard.press("Enter");
    await visitor.page.waitForURL((address) => address.pathname !== "/login");
    expect(visitor.page.url().startsWith(URL_)).toBe(true);
    await visitor.context.close();
  });

  it("who may only look sees no button that changes anything", async () => {
    const visitor = await Visitor.arrive(browser);
    await visitor.logIn("viewer", `/t/${TENANT}/quarantine`);
    await visitor.page.locator("table.rows td").first().waitFor();
    expect(await visitor.page.getByRole("button", { name: "Store after all" }).count()).toBe(0);
    await visitor.context.close();
  });
});

describe("keyboard alone", () => {
  it("logs in, comes to a device and moves its chart", async () => {
    const visitor = await Visitor.arrive(browser);
    const { page } = visitor;
    await page.goto(`/t/${TENANT}`);
    await page.locator("form").waitFor();
    await page.keyboard.type("viewer");
    await page.keyboard.press("Tab");
    await page.keyboard.type(process.env.CONSOLE_PASSWORD!);
    await page.keyboard.press("Enter");
    await page.locator(".series-row a").first().waitFor();
    const focused = () => page.evaluate(() => document.activeElement?.closest(".series-row") !== null);
    for (let at = 0; at < 40 && !(await focused()); at += 1) await page.keyboard.press("Tab");
    expect(await focused()).toBe(true);
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/p\//);
    const chart = page.locator("figure.chart");
    await chart.waitFor();
    await chart.focus();
    await page.keyboard.press("+");
    await page.waitForURL(/from=.*to=/);
    const zoomed = page.url();
    await page.keyboard.press("ArrowLeft");
    await expect.poll(() => page.url()).not.toBe(zoomed);
    expect(visitor.errors).toEqual([]);
    await visitor.context.close();
  });
});

describe("ids and times", () => {
  it("of 19 digits are shown as they are, times in the viewer's zone with UTC to hover", async () => {
    const visitor = await Visitor.arrive(browser);
    await visitor.logIn("viewer", `/t/${TENANT}/p/${PROJECT}/d/${DEVICE}`);
    await visitor.page.locator("table.rows td time").first().waitFor();
    expect(await visitor.page.locator("h1").textContent()).toBe(DEVICE);
    const time = visitor.page.locator("table.rows td time").first();
    const [shown, title, stamp] = [await time.textContent(), await time.getAttribute("title"), await time.getAttribute("datetime")];
    expect(title).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC$/);
    const shanghai = new Date(Date.parse(stamp!) + 8 * 3600_000).toISOString();
    expect(shown!.slice(0, 19)).toBe(shanghai.slice(0, 19).replace("T", " "));
    await visitor.context.close();
  });
});
