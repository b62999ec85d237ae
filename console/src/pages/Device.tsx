/** /t/{tenant}/p/{project}/d/{device}: values now, history, what happened, and the messages themselves. */
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useMemo } from "react";

import { qualityOf, type Series } from "../api/model";
import { historyQuery, marksQuery, seriesQuery } from "../api/queries";
import { formatValue } from "../format/number";
import { iso } from "../format/time";
import { useLive, useLiveFeed } from "../live/useLive";
import { ConnectionNote } from "../parts/ConnectionNote";
import { Loaded, Nothing } from "../parts/controls";
import { Marks } from "../parts/Marks";
import { HistoryView } from "../parts/HistoryView";
import { PageHead, usePageTitle } from "../parts/Layout";
import { MessageList } from "../parts/MessageList";
import { QualityMark } from "../parts/QualityMark";
import { RangePicker, useRange } from "../parts/RangePicker";
import { Age, Name } from "../parts/text";
import { visible } from "../format/visible";
import { useTexts } from "../texts";

export function DevicePage() {
  const { t } = useTexts();
  const params = useParams({ strict: false });
  const tenant = params.tenant!;
  const project = params.project!;
  const device = params.device ?? "";
  const search = useSearch({ strict: false });
  const navigate = useNavigate();
  usePageTitle(visible(device || project));
  useLiveFeed({ tenant, project, device });
  const live = useLive();
  const series = useInfiniteQuery(seriesQuery(tenant, { project, device }));
  const mine = useMemo(() => (series.data?.pages.flatMap((page) => page.series) ?? []).filter((each) => each.device === device), [series.data, device]);
  const chosen = mine.find((each) => each.metric === search.metric) ?? mine[0];
  const range = useRange(search);
  const lastSeen = mine.reduce<number | null>((latest, each) => Math.max(latest ?? 0, live.get(each.key)?.time ?? each.time ?? 0) || latest, null);
  const choose = (change: Record<string, string | undefined>) =>
    void navigate({ to: ".", search: without({ ...search, ...change }), replace: !("metric" in change), resetScroll: false });

  return (
    <>
      <PageHead title={device ? <Name text={device} /> : t("live.no-device")}>
        <span className="muted">
          {t("project")} <Name text={project} /> · {t("device.last-seen")} <Age at={lastSeen} />
        </span>
        <ConnectionNote health={live.health} />
      </PageHead>
      <Loaded of={series}>
        {() =>
          !chosen ? (
            <Nothing>{t("device.none")}</Nothing>
          ) : (
            <>
              <ul className="tiles" aria-label={t("device.series")}>
                {mine.map((each) => (
                  <li key={each.key}>
                    <Tile series={{ ...each, ...live.get(each.key) }} chosen={each === chosen} onChoose={() => choose({ metric: each.metric })} />
                  </li>
                ))}
              </ul>
              <RangePicker
                range={range.span}
                preset={range.preset}
                onPreset={(preset) => choose({ range: preset, from: undefined, to: undefined })}
                onRange={({ from, to }) => choose({ range: undefined, from: iso(from), to: iso(to) })}
              />
              <History tenant={tenant} series={chosen} range={range.span} onRange={({ from, to }) => choose({ range: undefined, from: iso(from), to: iso(to) })} />
              <MessageList tenant={tenant} project={project} device={device} range={range.span} />
            </>
          )
        }
      </Loaded>
    </>
  );
}

function History({ tenant, series, range, onRange }: { tenant: string; series: Series; range: { from: number; to: number }; onRange: (range: { from: number; to: number }) => void }) {
  const { project, device, metric } = series;
  const span = { from: iso(range.from), to: iso(range.to) };
  const history = useQuery(historyQuery(tenant, { project, device, metric, ...span }, "auto"));
  const marks = useQuery(marksQuery(tenant, { project, device, metric, ...span }));
  return (
    <>
      <div className={history.isPending ? "history-room" : undefined}>
        <Loaded of={history}>
          {(data) => <HistoryView tenant={tenant} history={data} marks={marks.data ?? []} range={range} busy={history.isFetching} onRange={onRange} />}
        </Loaded>
      </div>
      <Marks tenant={tenant} marks={marks} />
    </>
  );
}

function Tile({ series, chosen, onChoose }: { series: Series; chosen: boolean; onChoose: () => void }) {
  const { language } = useTexts();
  const quality = qualityOf(series);
  return (
    <button type="button" className={`tile ${quality}`} aria-pressed={chosen} onClick={onChoose}>
      <span className="tile-name"><Name text={series.displayName || series.metric} /></span>
      <span className="tile-value">
        <Name text={formatValue(series.value, series.valueText, language)} />
        {series.unit && <span className="unit"> <Name text={series.unit} /></span>}
      </span>
      <span className="tile-note">
        <QualityMark quality={quality} /> <Age at={series.time} />
      </span>
    </button>
  );
}

function without(search: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(Object.entries(search).filter((entry): entry is [string, string] => entry[1] !== undefined));
}
