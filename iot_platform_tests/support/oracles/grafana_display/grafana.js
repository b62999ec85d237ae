// What of Grafana the tests use; esbuild makes one file of it. Of scenes only these three modules: the whole needs a browser.
export * from '@grafana/data';
export { formatRegistry } from './node_modules/@grafana/scenes/dist/esm/packages/scenes/src/variables/interpolation/formatRegistry.js';
export { DataMacro } from './node_modules/@grafana/scenes/dist/esm/packages/scenes/src/variables/macros/dataMacros.js';
export { VARIABLE_REGEX } from './node_modules/@grafana/scenes/dist/esm/packages/scenes/src/variables/constants.js';
