/**
 * Sentences that the platform writes into the database, in English, once for all readers: what the audit found, why an incident is open, why a
 * message was refused, what became of an action. Here is what they say in Chinese. A test compares the English with the programs that write it.
 */
import { catalogue } from "./catalogue";
import type { Language } from "./index";

/** English with {{values}}, Chinese with the same. Of several that fit the first counts. */
export const sentences: readonly (readonly [english: string, chinese: string])[] = [
  // The balance, and what the audit found.
  ["how much waits in Kafka is not known since {{time}} UTC", "自 {{time}} UTC 起，Kafka 中待入库的数量不明"],
  ["nobody has looked at Kafka yet", "尚未检查过 Kafka"],
  ["an ingest daemon has not reported since {{time}} UTC", "有接入守护进程自 {{time}} UTC 起未上报"],
  ["no daemon has reported yet", "尚无接入守护进程上报"],
  ["no audit was made yet", "尚未进行过审计"],
  ["the audit {{proof}} was last made at {{time}} UTC", "审计 {{proof}} 上次执行于 {{time}} UTC"],
  ["the audit {{proof}} found {{count}} more; `iot audit` names them", "审计 {{proof}} 另发现 {{count}} 处差异，可用 `iot audit` 查看"],
  ["partition {{partition}} generation {{generation}} offset {{offsets}} is in no table", "分区 {{partition}} 世代 {{generation}} 偏移量 {{offsets}} 不在任何表中"],
  ["partition {{partition}} offset {{offsets}} is in no table", "分区 {{partition}} 偏移量 {{offsets}} 不在任何表中"],
  ["partition {{partition}} offset {{offsets}}: {{count}} are in no table, but Kafka has no record for {{empty}} of them", "分区 {{partition}} 偏移量 {{offsets}}：{{count}} 条不在任何表中，其中 {{empty}} 条在 Kafka 中没有记录"],
  ["partition {{partition}} offset {{offset}} is stored {{count}} times", "分区 {{partition}} 偏移量 {{offset}} 存储了 {{count}} 次"],
  ["{{place}}: offset {{offsets}} is in no batch of the ledger", "{{place}}：偏移量 {{offsets}} 不在账本的任何批次中"],
  ["{{place}}: offset {{offsets}} is in two batches of the ledger", "{{place}}：偏移量 {{offsets}} 同属账本的两个批次"],
  ["{{place}}: the ledger ends at offset {{offset}}, next_offset is {{next}}", "{{place}}：账本止于偏移量 {{offset}}，next_offset 为 {{next}}"],
  ["received more than {{seconds}} s after its time", "接收时刻比其时间晚 {{seconds}} 秒以上"],
  // Incidents.
  ["silent for {{seconds}} s; it usually sends every {{usual}} s", "已静默 {{seconds}} 秒，通常每 {{usual}} 秒发送一次"],
  ["the whole project is silent for {{seconds}} s; usually there is a message every {{usual}} s", "整个项目已静默 {{seconds}} 秒，通常每 {{usual}} 秒有一条消息"],
  ["gone: silent since {{time}} UTC; not looked at until it sends again", "已消失：自 {{time}} UTC 起静默，再次发送前不再评估"],
  ["{{count}} messages received, about {{expected}} expected", "收到 {{count}} 条消息，预期约 {{expected}} 条"],
  ["its clock is {{seconds}} s ahead; usually {{usual}} s", "时钟快 {{seconds}} 秒，通常 {{usual}} 秒"],
  ["its clock is {{seconds}} s behind; usually {{usual}} s", "时钟慢 {{seconds}} 秒，通常 {{usual}} 秒"],
  ["its clock is {{seconds}} s ahead", "时钟快 {{seconds}} 秒"],
  ["its clock is {{seconds}} s behind", "时钟慢 {{seconds}} 秒"],
  ["{{count}} of {{of}} measurements contradict another one of their series and time: one of the two is not stored, such as {{stored}} and not {{said}} of {{metric}}", "{{of}} 个测量值中有 {{count}} 个与同一序列同一时间的另一值冲突，两者只存其一，例如 {{metric}} 存 {{stored}} 而非 {{said}}"],
  ["{{count}} of {{of}} measurements contradict another one of their series and time: one of the two is not stored", "{{of}} 个测量值中有 {{count}} 个与同一序列同一时间的另一值冲突，两者只存其一"],
  ["{{count}} of {{of}} messages and {{values}} of {{all}} measurements were there already", "{{of}} 条消息中的 {{count}} 条、{{all}} 个测量值中的 {{values}} 个为重复"],
  ["{{count}} new series of one device", "同一设备新增 {{count}} 个序列"],
  ["{{count}} new series of one project", "同一项目新增 {{count}} 个序列"],
  ["{{count}} of {{of}} messages are in quarantine: {{reason}}", "{{of}} 条消息中有 {{count}} 条被隔离：{{reason}}"],
  ["within {{least}} to {{most}}", "在 {{least}} 至 {{most}} 之内"],
  ["{{value}} is below {{least}}, and {{count}} more values are outside", "{{value}} 低于 {{least}}，另有 {{count}} 个值超出范围"],
  ["{{value}} is above {{most}}, and {{count}} more values are outside", "{{value}} 高于 {{most}}，另有 {{count}} 个值超出范围"],
  ["{{value}} is below {{least}}", "{{value}} 低于 {{least}}"],
  ["{{value}} is above {{most}}", "{{value}} 高于 {{most}}"],
  ["{{count}} hour(s) of measurement_1h differ from measurement: `iot rollup rebuild` mends them", "measurement_1h 有 {{count}} 个小时与测量值不符，可用 `iot rollup rebuild` 修复"],
  ["{{count}} numbers are missing, last between {{before}} and {{after}}", "缺 {{count}} 个序号，最近在 {{before}} 与 {{after}} 之间"],
  ["without a gap", "无缺口"],
  ["exactly {{value}} for at least {{count}} measurements; it used to change", "至少 {{count}} 次测量恒为 {{value}}，此前会变化"],
  ["changes again", "已恢复变化"],
  ["changed from {{before}} to {{after}}", "由 {{before}} 变为 {{after}}"],
  ["of one type", "类型一致"],
  ["from {{before}} to {{after}} in {{seconds}} s", "{{seconds}} 秒内由 {{before}} 变为 {{after}}"],
  // The way of a message.
  ["received on topic {{topic}}, connection {{connection}}, message {{number}} of it", "在主题 {{topic}} 上接收，连接 {{connection}} 的第 {{number}} 条消息"],
  ["received on topic {{topic}}", "在主题 {{topic}} 上接收"],
  ["in Kafka: partition {{partition}} generation {{generation}}, offset {{offset}}", "已写入 Kafka：分区 {{partition}} 世代 {{generation}}，偏移量 {{offset}}"],
  ["in Kafka: partition {{partition}}, offset {{offset}}", "已写入 Kafka：分区 {{partition}}，偏移量 {{offset}}"],
  ["drain: committed with offsets {{from}} to {{to}}, {{seconds}} s after receipt, run {{run}}", "排空：随偏移量 {{from}} 至 {{to}} 提交，接收后 {{seconds}} 秒，运行 {{run}}"],
  ["replay: committed with offsets {{from}} to {{to}}, {{seconds}} s after receipt, run {{run}}", "重放：随偏移量 {{from}} 至 {{to}} 提交，接收后 {{seconds}} 秒，运行 {{run}}"],
  ["in quarantine: {{reason}}, {{detail}}", "已隔离：{{reason}}，{{detail}}"],
  ["a redelivery of offset {{offset}}, which has the measurements", "为偏移量 {{offset}} 的重复投递，测量值属于该消息"],
  ["by the settings of today it would be quarantined: {{reason}}, {{detail}}", "按现有设置将被隔离：{{reason}}，{{detail}}"],
  ["it holds no measurements", "不含测量值"],
  ["{{count}} of its {{of}} measurements are stored as it says", "其 {{of}} 个测量值中有 {{count}} 个已按原值入库"],
  ["at the time of {{count}} another value is stored (a conflict)", "其中 {{count}} 个的时间已有另一值（冲突）"],
  ["{{count}} are not at their time: moved beside another one, removed by retention, or missing", "{{count}} 个不在其时间上：已与另一值错开、已过保留期或缺失"],
  // Actions and dry runs.
  ["{{count}} messages left quarantine with {{values}} measurements", "{{count}} 条消息已移出隔离区，含 {{values}} 个测量值"],
  ["{{count}} stay ({{reasons}})", "{{count}} 条仍被隔离（{{reasons}}）"],
  ["silenced until {{time}} UTC", "已静默至 {{time}} UTC"],
  ["no longer silenced", "已取消静默"],
  ["acknowledged", "已确认"],
  ["{{who}} had acknowledged it already", "{{who}} 此前已确认"],
  ["changed; judged by it from the next evaluation on, 3 minutes at most", "已修改，自下次评估起生效，最多 3 分钟"],
  ["nothing to change", "无需修改"],
  ["changed", "已修改"],
  ["messages received from {{time}} UTC on are left alone; what it made stays", "自 {{time}} UTC 起收到的消息不再按此处理，已入库的数据不变"],
  ["{{count}} measurements of device {{device}} in project {{project}}", "项目 {{project}} 中设备 {{device}} 的 {{count}} 个测量值"],
  ["{{count}} measurement of device {{device}} in project {{project}}", "项目 {{project}} 中设备 {{device}} 的 {{count}} 个测量值"],
  ["another tenant's", "属于其他租户"],
  ["its topic names no tenant by the platform's rules", "按平台规则，其主题没有给出租户"],
  // Why a message is refused.
  ["topic {{topic}} does not fit IOT_TOPIC_PATTERN {{pattern}}", "主题 {{topic}} 不符合 IOT_TOPIC_PATTERN {{pattern}}"],
  ["the payload has no bytes", "载荷没有字节"],
  ["the payload decompresses to no bytes", "载荷解压后没有字节"],
  ["not a JSON document: it ends inside {{count}} open objects or arrays", "不是 JSON 文档：在 {{count}} 层未闭合的对象或数组中结束"],
  ["not a JSON document: unexpected text at character {{position}}", "不是 JSON 文档：第 {{position}} 个字符处有多余内容"],
  ["not a JSON document: {{name}} is no JSON number", "不是 JSON 文档：{{name}} 不是 JSON 数字"],
  ["not a JSON document: {{what}} at character {{position}}", "不是 JSON 文档：第 {{position}} 个字符处 {{what}}"],
  ["a \\u escape is half of a surrogate pair, which is no character", "\\u 转义只是代理对的一半，不是字符"],
  ["the document is neither an object nor a list of points", "文档既不是对象，也不是数据点列表"],
  ["neither topic nor payload names a tenant and a project of 1 to 128 bytes", "主题和载荷都没有给出 1 到 128 字节的租户和项目"],
  ["{{count}} measurements; at most {{most}} are taken", "{{count}} 个测量值，最多接受 {{most}} 个"],
  ["{{time}} is neither an epoch number nor YYYY-MM-DDTHH:MM:SS", "{{time}} 既不是时间戳数字，也不是 YYYY-MM-DDTHH:MM:SS"],
  ["time {{time}} is outside the window around receive time {{received}}", "时间 {{time}} 超出接收时间 {{received}} 的允许范围"],
  ["metric {{metric}} is there twice for the same device and time", "同一设备同一时间的指标 {{metric}} 出现两次"],
  ["objects and arrays are nested more than {{levels}} levels deep", "对象和数组嵌套超过 {{levels}} 层"],
  ["the number {{number}} is beyond a double", "数字 {{number}} 超出双精度范围"],
  ["U+0000 in {{where}}; the database can not hold it", "{{where}} 中有 U+0000，数据库无法保存"],
  ["byte {{at}} of {{of}} is not UTF-8: {{why}}", "第 {{at}} 个字节（共 {{of}} 个）不是 UTF-8：{{why}}"],
];

/** Words within sentences. */
const words: Readonly<Record<string, string>> = {
  "invalid start byte": "起始字节无效", "invalid continuation byte": "后续字节无效", "unexpected end of data": "数据意外结束",
  "Expecting value": "缺少值", "Expecting ',' delimiter": "缺少逗号", "Expecting ':' delimiter": "缺少冒号",
  "Expecting property name enclosed in double quotes": "缺少双引号括起的属性名", "Illegal trailing comma before end of object": "对象末尾有多余逗号",
  "Illegal trailing comma before end of array": "数组末尾有多余逗号", "Unterminated string starting": "字符串未结束", "Invalid control character": "控制字符无效",
  "Invalid \\escape": "转义无效", "Invalid \\uXXXX escape": "\\uXXXX 转义无效", "Extra data": "有多余内容",
  number: "数字", boolean: "布尔值", text: "文本",
};

interface Pattern {
  english: RegExp;
  names: string[];
  chinese: string;
}

const patterns: Pattern[] = sentences.map(([english, chinese]) => ({
  english: new RegExp(`^${english.split(/\{\{\w+\}\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("(.+?)")}$`, "s"),
  names: [...english.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]!),
  chinese,
}));

/** What a sentence of the platform says in the viewer's language; as it is where we do not know it. */
export function said(text: string, language: Language): string {
  return language === "en" ? text : (chineseOf(text) ?? text);
}

function chineseOf(text: string): string | undefined {
  const clauses = text.split("; ");
  if (clauses.length > 1) {
    const found = clauses.map(chineseOf);
    if (found.every((clause) => clause !== undefined)) return found.join("；");
  }
  for (const { english, names, chinese } of patterns) {
    const match = english.exec(text);
    if (match) return chinese.replace(/\{\{(\w+)\}\}/g, (_, name: string) => valueOf(match[names.indexOf(name) + 1]!));
  }
  const [reason, rest] = [text.slice(0, text.indexOf(": ")), text.slice(text.indexOf(": ") + 2)];
  return reason && Object.hasOwn(catalogue, `reason.${reason}`) ? `${valueOf(reason)}：${chineseOf(rest) ?? rest}` : undefined;
}

/** A value: itself, unless it is a reason, a word or a sentence of its own. */
function valueOf(value: string): string {
  const [, partition, generation] = /^partition (\d+)(?: generation (\d+))?$/.exec(value) ?? [];
  if (partition) return `分区 ${partition}${generation ? ` 世代 ${generation}` : ""}`;
  const reason = `reason.${value}`;
  if (Object.hasOwn(catalogue, reason)) return catalogue[reason as keyof typeof catalogue][1];
  return words[value] ?? chineseOf(value) ?? value;
}
