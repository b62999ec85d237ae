import { describe, expect, it } from "vitest";

import { said, sentences } from "./sentences";

const names = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]).sort();

describe("sentences of the platform", () => {
  it.each(sentences)("%s: the same values in Chinese", (english, chinese) => {
    expect(names(chinese)).toEqual(names(english));
    expect(chinese).toMatch(/\p{Script=Han}/u);
    expect(english).not.toMatch(/\p{Script=Han}/u);
  });

  it.each([
    ["no audit was made yet", "尚未进行过审计"],
    ["partition 3 offset 17-19 is in no table", "分区 3 偏移量 17-19 不在任何表中"],
    ["partition 3 generation 1: offset 4-9 is in no batch of the ledger", "分区 3 世代 1：偏移量 4-9 不在账本的任何批次中"],
    ["its clock is 40 s behind; usually 2 s", "时钟慢 40 秒，通常 2 秒"],
    ["3 of 4 messages are in quarantine: not_json", "4 条消息中有 3 条被隔离：不是 JSON"],
    ["7 messages left quarantine with 9 measurements; 2 stay (not_utf8: 2)", "7 条消息已移出隔离区，含 9 个测量值；2 条仍被隔离（不是 UTF-8：2）"],
    ["in quarantine: not_utf8, byte 2 of 45 is not UTF-8: invalid start byte", "已隔离：不是 UTF-8，第 2 个字节（共 45 个）不是 UTF-8：起始字节无效"],
    ["not_json: not a JSON document: unexpected text at character 3", "不是 JSON：不是 JSON 文档：第 3 个字符处有多余内容"],
    ["from 1.5 to 9 in 0.500 s", "0.500 秒内由 1.5 变为 9"],
    ["something nobody foresaw", "something nobody foresaw"],
  ])("%s", (english, chinese) => {
    expect(said(english, "zh-CN")).toBe(chinese);
    expect(said(english, "en")).toBe(english);
  });

  it("takes values as they are, whatever they hold", () => {
    expect(said("received on topic a/$&/{{topic}}", "zh-CN")).toBe("在主题 a/$&/{{topic}} 上接收");
  });
});
