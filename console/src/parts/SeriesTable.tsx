/** Series with their values, however many: only the rows in sight are in the page. */
import { useVirtualizer } from "@tanstack/react-virtual";
import { Link } from "@tanstack/react-router";
import { useEffect, useMemo, useRef } from "react";

import { qualityOf, type Series } from "../api/model";
import { exactValue, formatCount, formatValue } from "../format/number";
import type { LiveStore } from "../live/store";
import { Trends } from "../live/trends";
import { useTexts } from "../texts";
import { QualityMark } from "./QualityMark";
import { sparkPath, Sparkline } from "./Sparkline";
import { Age, Name } from "./text";

interface Props {
  tenant: string;
  rows: readonly Series[];
  /** How many there are in all, where that is known. */
  total: number | undefined;
  live: LiveStore;
  more: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown };
}

/** A row is one line where there is room, two on a phone. */
const ROW = 46;

export function SeriesTable({ tenant, rows, total, live, more }: Props) {
  const { t, language } = useTexts();
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length, getScrollElement: () => scroller.current, estimateSize: () => ROW, overscan: 8, getItemKey: (at) => rows[at]!.key,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = more;
  useEffect(() => {
    if (last > rows.length - 100 && hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [last, rows.length, hasNextPage, isFetchingNextPage, fetchNextPage]);

  const trends = useMemo(() => new Trends(tenant, live), [tenant, live]);
  const seen = virtual.isScrolling ? "" : `${items[0]?.key} ${items.at(-1)?.key} ${rows.length}`;
  useEffect(() => {
    if (seen) trends.want(items.map((item) => rows[item.index]!));
    // When other rows are in sight, not with each value.
  }, [trends, seen]);

  return (
    <>
      <p className="count" role="status">
        {live.paused ? t("live.paused", { count: formatCount(live.sincePause, language) }) : t("live.count", { count: formatCount(total ?? rows.length, language) })}
        {total === undefined && hasNextPage ? " +" : ""}
      </p>
      <div ref={scroller} className="series-scroller" tabIndex={0} role="region" aria-label={t("live.table")}>
        <div role="table" aria-label={t("live.table")} aria-rowcount={(total ?? rows.length) + 1} className="series-table">
          <div role="rowgroup">
            <div role="row" aria-rowindex={1} className="series-head">
              {(["device", "series", "value", "quality", "trend", "last-seen"] as const).map((column) => (
                <span key={column} role="columnheader" className={`c-${column}`}>
                  {t(`live.column.${column}`)}
                </span>
              ))}
            </div>
          </div>
          <div role="rowgroup" style={{ height: virtual.getTotalSize() }} className="series-rows">
            {items.map((item) => (
              <div
                key={item.key}
                ref={virtual.measureElement}
                data-index={item.index}
                role="row"
                aria-rowindex={item.index + 2}
                className="series-row"
                style={{ transform: `translateY(${item.start}px)` }}
              >
                <Cells tenant={tenant} series={rows[item.index]!} live={live} />
              </div>
            ))}
          </div>
        </div>
      </div>
    </>
  );
}

function Cells({ tenant, series, live }: { tenant: string; series: Series; live: LiveStore }) {
  const { t, language } = useTexts();
  const fresh = live.get(series.key);
  const now = fresh && (series.time === null || fresh.time >= series.time) ? { ...series, ...fresh } : series;
  const trend = live.trend(series.key);
  const search = { metric: series.metric };
  const device = series.device ? (
    <Link to="/t/$tenant/p/$project/d/$device" params={{ tenant, project: series.project, device: series.device }} search={search}>
      <Name text={series.device} />
    </Link>
  ) : (
    <Link to="/t/$tenant/p/$project" params={{ tenant, project: series.project }} search={search}>
      {t("live.no-device")}
    </Link>
  );
  const number = now.valueText === null || now.value !== null;
  return (
    <>
      <span role="cell" className="c-device">
        {device}
        <small><Name text={series.project} /></small>
      </span>
      <span role="cell" className="c-series" title={series.description || undefined}>
        <Name text={series.displayName || series.metric} />
        {series.displayName && series.displayName !== series.metric && <small><Name text={series.metric} /></small>}
      </span>
      <span role="cell" className={number ? "c-value" : "c-value text"} title={exactValue(now.value, now.valueText)}>
        <strong><Name text={formatValue(now.value, now.valueText, language)} /></strong>
        {series.unit && <span className="unit"> <Name text={series.unit} /></span>}
      </span>
      <span role="cell" className="c-quality">
        <QualityMark quality={qualityOf(now)} />
      </span>
      <span role="cell" className="c-trend">
        {trend && trend.time.length > 1 ? <Sparkline path={sparkPath(trend)} /> : null}
      </span>
      <span role="cell" className="c-last-seen">
        <Age at={now.time} />
      </span>
    </>
  );
}
