// Reads one JSON object from standard input: panels (each with the frames that its data source would hand to it) and values to format; writes
// what Grafana shows of them. Argument: the bundle of grafana.js.
import { readFileSync, writeSync } from 'node:fs';

globalThis.window ??= {};
globalThis.navigator ??= { language: 'en-US', languages: ['en-US'] };
const grafana = await import(process.argv[2]);

const TIME_RANGE = 'from=now-6h&to=now';
const theme = grafana.createTheme();
grafana.locationUtil.initialize({ config: { appSubUrl: '' }, getTimeRangeForUrl: () => ({}), getVariablesUrlParams: () => ({}) });

// Grafana registers these in its application, which is no package.
const option = (id, process) => ({ id, path: id, process, shouldApply: () => true, settings: {} });
const options = new grafana.Registry(() => [
  option('unit', grafana.unitOverrideProcessor),
  option('noValue', grafana.displayNameOverrideProcessor),
  option('displayName', grafana.displayNameOverrideProcessor),
  option('decimals', grafana.numberOverrideProcessor),
  option('thresholds', grafana.thresholdsOverrideProcessor),
  option('mappings', grafana.valueMappingsOverrideProcessor),
  option('links', grafana.dataLinksOverrideProcessor),
]);

// As sceneInterpolator does with the variables that links can name.
function interpolate(text, scopedVars, format) {
  return text.replace(grafana.VARIABLE_REGEX, (match, plain, bracket, bracketFormat, name, path, given) => {
    name = plain ?? bracket ?? name;
    if (name === '__url_time_range') {
      return TIME_RANGE;
    }
    if (name !== '__data') {
      return match;
    }
    let value = new grafana.DataMacro(name, null, match, scopedVars).getValue(path);
    if (!Array.isArray(value) && typeof value === 'object') {
      value = `${value}`;
    }
    return grafana.formatRegistry.get(bracketFormat ?? given ?? format ?? 'glob').formatter(value, [], { state: { name } });
  });
}

const { mergeTransformer, organizeFieldsTransformer } = grafana.standardTransformers;
grafana.standardTransformersRegistry.setInit(() =>
  [mergeTransformer, organizeFieldsTransformer].map((one) => ({ id: one.id, name: one.name, transformation: one, editor: () => null }))
);

async function show({ panel, frames }) {
  const sent = frames.map(grafana.dataFrameFromJSON);
  const data = grafana.applyFieldOverrides({
    data: await new Promise((done) => grafana.transformDataFrame(panel.transformations ?? [], sent).subscribe(done)),
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: options,
    replaceVariables: interpolate,
    theme,
    timeZone: 'utc',
  });
  // Of time series in frames of their own the first one's times are enough.
  const shown = data.flatMap((frame, number) => frame.fields.filter((_, place) => number === 0 || place > 0).map((field) => [frame, field]));
  const fields = shown.map(([frame, field]) => ({
    name: grafana.getFieldDisplayName(field, frame, data),
    type: field.type,
    unit: field.config.unit ?? null,
    shown: field.values.map((value) => grafana.formattedValueToString(field.display(value))),
    links: field.values.map((_, row) => field.getLinks({ valueRowIndex: row }).map((link) => link.href)),
  }));
  const figures = panel.type !== 'stat' ? null : grafana.getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    data,
    replaceVariables: interpolate,
    theme,
    timeZone: 'utc',
  }).map((figure) => ({ title: figure.display.title, text: grafana.formattedValueToString(figure.display) }));
  return { fields, figures };
}

const asked = JSON.parse(readFileSync(0, 'utf8'));
const formats = asked.formats.map(([format, value]) => grafana.formatRegistry.get(format).formatter(value, [], { state: { name: 'x' } }));
const answer = Buffer.from(JSON.stringify({ panels: await Promise.all(asked.panels.map(show)), formats }));
for (let written = 0; written < answer.length; ) {
  written += writeSync(1, answer, written);
}
