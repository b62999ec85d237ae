/** A history: the chart, its table of values, and the files that it can be taken home in. */
import { useMemo, useState } from "react";

import type { History, Mark, RawColumns } from "../api/model";
import { formatCount, formatValue } from "../format/number";
import { formatTime, iso } from "../format/time";
import { visible } from "../format/visible";
import { useTexts } from "../texts";
import { Badge, Button, Nothing, Scroller } from "./controls";
import { Chart } from "./Chart";
import { isRollup, pointsOf, summaryOf, type Range } from "./series";
import { Name, Time } from "./text";

interface Props {
  tenant: string;
  history: History;
  marks: readonly Mark[];
  range: Range;
  busy: boolean;
  onRange: (range: Range) => void;
}

export function HistoryView({ tenant, history, marks, range, busy, onRange }: Props) {
  const { t, language } = useTexts();
  const [table, setTable] = useState(false);
  const [copied, setCopied] = useState(false);
  const { series, columns, resolution } = history;
  const points = useMemo(() => pointsOf(history), [history]);
  const summary = useMemo(() => summaryOf(columns), [columns]);
  const name = visible(series.display_name || series.metric);
  const texts = !isRollup(columns) && columns.value.every((value) => value === null) && columns.time.length > 0;
  const unit = series.unit ? ` ${visible(series.unit)}` : "";
  const words = columns.time.length
    ? t("chart.summary", {
        name, count: formatCount(summary.count, language), from: formatTime(range.from, "minute"), to: formatTime(range.to, "minute"),
        min: formatValue(summary.min, summary.minText, language) + unit, max: formatValue(summary.max, summary.maxText, language) + unit,
        last: formatValue(summary.last, summary.lastText, language) + unit, gaps: points.gaps,
      })
    : t("chart.empty", { name });
  const file = (format: "csv" | "parquet") => {
    const query = new URLSearchParams({ project: series.project, device: series.device, metric: series.metric, from: iso(range.from), to: iso(range.to), resolution, format });
    return `/api/v1/tenants/${encodeURIComponent(tenant)}/export?${query}`;
  };
  const copy = async () => {
    const link = new URL(location.href);
    link.searchParams.delete("range");
    link.searchParams.set("metric", series.metric);
    link.searchParams.set("from", iso(range.from));
    link.searchParams.set("to", iso(range.to));
    // Not on http addresses other than this machine's: browsers have no clipboard there. The address bar gets it in any case.
    addressBar.replace(link);
    setCopied(await navigator.clipboard?.writeText(link.href).then(() => true, () => false) ?? false);
  };
  return (
    <section className="history" aria-busy={busy}>
      <div className="toolbar">
        <h2>
          <Name text={series.display_name || series.metric} />
          {series.unit && <span className="unit"> <Name text={series.unit} /></span>}
        </h2>
        <Badge tone="plain">{t(`resolution.${resolution}`)}</Badge>
        {history.truncated && <Badge tone="warn">{t("chart.truncated")}</Badge>}
        <span className="bar-space" />
        <Button aria-expanded={table} onClick={() => setTable(!table)}>{t("chart.table")}</Button>
        <a className="button" href={file("csv")} download>CSV</a>
        <a className="button" href={file("parquet")} download>Parquet</a>
        <Button onClick={() => void copy()}>{t("chart.link")}</Button>
        <span role="status" className="note">{copied ? t("chart.copied") : ""}</span>
      </div>
      {texts ? (
        <>
          <p className="note">{t("chart.texts")}</p>
          <Values columns={columns} unit={series.unit} />
        </>
      ) : (
        <Chart title={t("chart.title", { name })} unit={series.unit} summary={words} points={points} range={range} marks={marks}
          validMin={series.valid_min} validMax={series.valid_max} onRange={onRange} />
      )}
      {table && !texts && <Values columns={columns} unit={series.unit} />}
    </section>
  );
}

const addressBar = { replace: (link: URL) => window.history.replaceState(window.history.state, "", link) };
/** Rows that a table of values shows: more is what the files are for. */
const MOST = 500;

function Values({ columns, unit }: { columns: History["columns"]; unit: string }) {
  const { t, language } = useTexts();
  if (columns.time.length === 0) return <Nothing>{t("chart.no-values")}</Nothing>;
  const rollup = isRollup(columns) ? columns : null;
  const raw = columns as RawColumns;
  const shown = [...columns.time.keys()].reverse().slice(0, MOST);
  return (
    <Scroller label={t("chart.table")}>
      <table>
        <caption>{columns.time.length > MOST ? t("chart.newest", { count: MOST, of: columns.time.length }) : t("chart.all-values", { count: columns.time.length })}{unit ? ` · ${visible(unit)}` : ""}</caption>
        <thead>
          <tr>
            <th scope="col">{t("chart.time")}</th>
            {(rollup ? (["average", "min", "max", "count"] as const) : (["value"] as const)).map((column) => (
              <th key={column} scope="col" className="number">{t(`chart.${column}`)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shown.map((at) => (
            <tr key={columns.time[at]}>
              <th scope="row"><Time at={columns.time[at]!} precision={rollup ? "minute" : "millisecond"} /></th>
              {rollup ? (
                <>
                  {[rollup.avg, rollup.min, rollup.max].map((column, index) => (
                    <td key={index} className="number">{formatValue(column[at], null, language)}</td>
                  ))}
                  <td className="number">{formatCount(rollup.count[at], language)}</td>
                </>
              ) : (
                <td className={raw.value[at] === null ? "" : "number"}><Name text={formatValue(raw.value[at], raw.value_text[at], language)} /></td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroller>
  );
}
