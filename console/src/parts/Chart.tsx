/** A line over time with its band, gaps and marks: uPlot, and what a canvas has not: a name, a summary, keys and buttons. */
import { useEffect, useId, useLayoutEffect, useMemo, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import type { Mark } from "../api/model";
import { formatValue } from "../format/number";
import { formatTime } from "../format/time";
import { useTexts } from "../texts";
import { Button } from "./controls";
import { moved, type Points, type Range } from "./series";
import { marksPlugin, ticks } from "./chartPlugins";
import { useTheme } from "./theme";

interface Props {
  title: string;
  unit: string;
  summary: string;
  points: Points;
  range: Range;
  marks: readonly Mark[];
  validMin: number | null;
  validMax: number | null;
  onRange: (range: Range) => void;
}

const HEIGHT = 280;
/** Of a digit of the axis, with its separators; and of the tick and the space beside it. */
const DIGIT = 7;
const BESIDE = 20;

/** Room for the longest label: whole numbers have all their digits. */
function axisWidth(labels: readonly string[] | null): number {
  return Math.max(64, BESIDE + DIGIT * Math.max(0, ...(labels ?? []).map((label) => label.length)));
}

export function Chart(props: Props) {
  const { t, language } = useTexts();
  const theme = useTheme();
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const summaryId = useId();
  const { points, range } = props;
  const banded = points.low !== null;
  const data = useMemo<uPlot.AlignedData>(
    () => (points.low && points.high ? [points.time, points.value, points.high, points.low] : [points.time, points.value]),
    [points],
  );

  useLayoutEffect(() => {
    const element = box.current!;
    const colours = getComputedStyle(element);
    const colour = (name: string) => colours.getPropertyValue(name).trim();
    const line = colour("--line");
    const series: uPlot.Series[] = [
      { label: t("chart.time"), value: (_, value) => (value === null ? "" : formatTime(value)) },
      {
        label: banded ? t("chart.average") : t("chart.value"), stroke: line, width: 1.6,
        value: (_, value, _series, at) => formatValue(value, at === null ? null : latest.current.points.text[at], language),
        points: { size: 4, show: (chart, _series, from, to) => !banded && to - from < chart.bbox.width / 12 },
      },
    ];
    if (banded)
      series.push(
        { label: t("chart.max"), stroke: "transparent", points: { show: false }, value: (_, value) => formatValue(value, null, language) },
        { label: t("chart.min"), stroke: "transparent", points: { show: false }, value: (_, value) => formatValue(value, null, language) },
      );
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid"), width: 1 }, font: "12px system-ui, sans-serif" };
    const options: uPlot.Options = {
      width: Math.max(element.clientWidth, 200), height: HEIGHT, ms: 1, series,
      scales: { x: { time: true, auto: false, range: () => [latest.current.range.from, latest.current.range.to] } },
      bands: banded ? [{ series: [2, 3], fill: colour("--band") }] : [],
      axes: [
        { ...axis, values: (_, splits, _axis, _space, step) => ticks(splits, step) },
        { ...axis, size: (_, labels) => axisWidth(labels), values: (_, splits) => splits.map((split) => formatValue(split, null, language)) },
      ],
      cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
      legend: { live: true },
      plugins: [marksPlugin(() => latest.current, colour)],
      hooks: {
        setSelect: [
          (chart) => {
            const { left, width } = chart.select;
            if (width < 4) return;
            chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            latest.current.onRange({ from: Math.round(chart.posToVal(left, "x")), to: Math.round(chart.posToVal(left + width, "x")) });
          },
        ],
      },
    };
    const chart = new uPlot(options, data, element);
    chart.root.querySelector("canvas")?.setAttribute("aria-hidden", "true");
    plot.current = chart;
    const resized = new ResizeObserver(() => chart.setSize({ width: Math.max(element.clientWidth, 200), height: HEIGHT }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      chart.destroy();
      plot.current = null;
    };
    // The data is set below: a chart is made anew only when its looks change.
  }, [banded, language, theme, t("chart.time")]);

  useEffect(() => plot.current?.setData(data), [data]);
  useEffect(() => {
    plot.current?.setScale("x", { min: range.from, max: range.to });
  }, [range.from, range.to]);
  useEffect(() => plot.current?.redraw(false), [props.marks, props.validMin, props.validMax]);

  const go = (by: number, factor = 1) => props.onRange(moved(range, by, factor));
  const keys: Record<string, () => void> = {
    ArrowLeft: () => go(-0.25), ArrowRight: () => go(0.25), "+": () => go(0, 0.5), "=": () => go(0, 0.5), "-": () => go(0, 2),
  };
  return (
    <figure
      className="chart"
      aria-label={props.title}
      aria-describedby={summaryId}
      tabIndex={0}
      onKeyDown={(event) => {
        const act = event.target === event.currentTarget && !event.ctrlKey && !event.metaKey && !event.altKey ? keys[event.key] : undefined;
        if (!act) return;
        event.preventDefault();
        act();
      }}
    >
      <div className="chart-head">
        <figcaption id={summaryId}>{props.summary}</figcaption>
        <div className="chart-buttons" role="group" aria-label={t("chart.move")}>
          <Button aria-label={t("chart.earlier")} title={`${t("chart.earlier")} (←)`} onClick={() => go(-0.5)}>◀</Button>
          <Button aria-label={t("chart.later")} title={`${t("chart.later")} (→)`} onClick={() => go(0.5)}>▶</Button>
          <Button aria-label={t("chart.zoom-in")} title={`${t("chart.zoom-in")} (+)`} onClick={() => go(0, 0.5)}>＋</Button>
          <Button aria-label={t("chart.zoom-out")} title={`${t("chart.zoom-out")} (−)`} onClick={() => go(0, 2)}>－</Button>
        </div>
      </div>
      <div ref={box} className="plot" />
    </figure>
  );
}
