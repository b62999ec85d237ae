/** The API's types under short names. */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Session = Schemas["Session"];
export type GrantedTenant = Schemas["GrantedTenant"];
export type Role = GrantedTenant["role"];
export type Project = Schemas["Project"];
export type SeriesColumns = Schemas["SeriesColumns"];
export type History = Schemas["History"];
export type RawColumns = Schemas["RawColumns"];
export type RollupColumns = Schemas["RollupColumns"];
export type Mark = Schemas["Mark"];
export type Message = Schemas["Message"];
export type Balance = Schemas["Balance"];
export type Gap = Schemas["Gap"];
export type TraceStep = Schemas["TraceStep"];
export type QuarantinedMessage = Schemas["QuarantinedMessage"];
export type Incident = Schemas["Incident"];
export type Rule = Schemas["RuleRow"];
export type RuleChange = Schemas["RuleChange"];
export type Action = Schemas["Action"];
export type ActionRequest = Schemas["ActionRequest"];
export type Correction = Schemas["CorrectionRow"];
export type SeriesInfo = Schemas["SeriesInfo"];
export type SeriesInfoChange = Schemas["SeriesInfoChange"];
export type User = Schemas["UserRow"];
export type ApiKey = Schemas["ApiKey"];
export type DryRun = Schemas["DryRun"];

/** One series with its latest value. */
export interface Series {
  key: string;
  project: string;
  device: string;
  metric: string;
  unit: string;
  displayName: string;
  description: string;
  validMin: number | null;
  validMax: number | null;
  time: number | null;
  value: number | null;
  valueText: string | null;
  flags: number | null;
}

/** Key of a series within its tenant. No name holds U+0000. */
export function seriesKey(project: string, device: string, metric: string): string {
  return `${project}\u0000${device}\u0000${metric}`;
}

/** The columns as series. */
export function seriesOf(columns: SeriesColumns): Series[] {
  return columns.metric.map((metric, at) => {
    const project = columns.project[at]!;
    const device = columns.device[at]!;
    return {
      key: seriesKey(project, device, metric), project, device, metric,
      unit: columns.unit[at]!, displayName: columns.display_name[at]!, description: columns.description[at]!,
      validMin: columns.valid_min[at] ?? null, validMax: columns.valid_max[at] ?? null,
      time: columns.time[at] ?? null, value: columns.value[at] ?? null, valueText: columns.value_text[at] ?? null,
      flags: columns.flags[at] ?? null,
    };
  });
}

/** What is to be said of a value beside itself. */
export type Quality = "none" | "out-of-range" | "retained" | "late" | "shifted" | "good";

/** Bits of `flags`: 1 shifted by microseconds because another reading stood there, 2 from a retained message without a time of its own,
 * 4 received more than two minutes after its time. */
export function qualityOf(series: Pick<Series, "time" | "value" | "valueText" | "flags" | "validMin" | "validMax">): Quality {
  if (series.time === null) return "none";
  const { value, validMin, validMax } = series;
  if (value !== null && ((validMin !== null && value < validMin) || (validMax !== null && value > validMax))) return "out-of-range";
  const flags = series.flags ?? 0;
  if (flags & 2) return "retained";
  if (flags & 4) return "late";
  return flags & 1 ? "shifted" : "good";
}

const ORDER: Role[] = ["viewer", "operator", "admin"];

/** Whether a role may do what `needed` may. */
export function may(role: Role | undefined, needed: Role): boolean {
  return role !== undefined && ORDER.indexOf(role) >= ORDER.indexOf(needed);
}
