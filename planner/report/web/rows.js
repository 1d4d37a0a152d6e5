"use strict";
// What the page holds, what of it the filter leaves, and the rows of every chart from that.
const { packs, changed, charts } = JSON.parse(document.getElementById("data").textContent);
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const bytes = (count) => count >= 1e9 ? `${number.format(count / 1e9)} GB` :
  count >= 1e6 ? `${number.format(count / 1e6)} MB` : `${number.format(count / 1e3)} kB`;
const millions = (count) => `${number.format(count / 1e6)} M`;
const giga = (count) => `${number.format(count / 1e9)} G`;
const fewer = (full, part) => (part ? `${number.format(full / part)}×` : "");
const range = (values) => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? `${low}` : `${low}–${high}`;
};
const total = (layer) => Object.values(layer.bytes).reduce((sum, size) => sum + size, 0);

// The filter: a regular expression where it is one, else plain text.

function matcher(text) {
  const field = document.getElementById("pattern");
  field.classList.remove("plain");
  try {
    const expression = new RegExp(text, "i");
    return (layer) => expression.test(layer.name);
  } catch {
    field.classList.add("plain");
    return (layer) => layer.name.toLowerCase().includes(text.toLowerCase());
  }
}

// Where a layer stands on an axis that packs share, whichever of its layers a pack lacks.
const position = new Map([...new Set(packs.flatMap((pack) => pack.layers.map((layer) => layer.name)))]
  .map((name, index) => [name, index]));

// Rows of every chart, from the layers that the filter leaves of one pack, or of all.

function by(layers, key) {
  const groups = new Map();
  for (const layer of layers) {
    if (!groups.has(layer[key])) groups.set(layer[key], []);
    groups.get(layer[key]).push(layer);
  }
  return groups;
}

const rows = {
  blocks: (pack, layers) => [...by(layers, "block")].flatMap(([block, members]) =>
    pack.timesteps.map((timestep, step) => ({
      block: block ?? "none", step: step + 1, timestep,
      bits: mean(members.map((layer) => layer.activation_bits[step])),
    }))),
  layers: (pack, layers) => layers.flatMap((layer) =>
    pack.timesteps.map((timestep, step) => ({
      layer: layer.name, step: step + 1, timestep, bits: layer.activation_bits[step],
    }))),
  profile: (_pack, layers) => layers.map((layer) => ({
    layer: layer.name, block: layer.block ?? "none", kind: layer.kind, bits: layer.weight_bits,
    weights: layer.out * layer.in,
  })),
  histogram: (pack, layers) => layers.map((layer) => ({
    pack: pack.label, bits: layer.weight_bits, weights: layer.out * layer.in,
  })),
  variances: (_pack, layers) => layers.map((layer, index) => ({ layer, index }))
    .filter(({ layer }) => layer.variances && layer.variances[4] > 0)
    .map(({ layer, index }) => {
      const [low, lower, median, upper, high] =
        layer.variances.map((value) => Math.max(value, layer.variances[4] * 1e-6));
      return { layer: layer.name, index, low, lower, median, upper, high };
    }),
  inputs: (pack, layers) => layers.filter((layer) => layer.inputs).flatMap((layer) =>
    pack.input_timesteps.map((_timestep, step) => ({ step: step + 1, value: layer.inputs[step] }))
      .filter(({ value }) => value > 0)
      .map(({ step, value }) => ({ step, log: Math.log10(value) }))),
  errors: (pack, layers) => layers.map((layer) => ({
    layer: layer.name, index: position.get(layer.name), pack: pack.label, error_db: layer.error_db,
    weight_bits: layer.weight_bits,
  })).filter((row) => row.error_db !== null),
  bytes: (_pack, layers) => layers.flatMap((layer) =>
    Object.entries(layer.bytes).map(([part, size], rank) =>
      ({ kind: layer.kind, part, rank, bytes: size })).filter((row) => row.bytes)),
};
