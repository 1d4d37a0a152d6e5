// Plots, by Vega, in the colours of the page.
const MOST_NAMED_ROWS = 60;
const views = [];

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const [ink, faint, line] = ["--ink", "--faint", "--line"].map(colour);
  return {
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily || "sans-serif",
    view: { stroke: line },
    axis: { labelColor: faint, titleColor: faint, gridColor: line, domainColor: line,
            tickColor: line, labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal" },
    legend: { labelColor: faint, titleColor: faint, labelFontSize: 11, titleFontSize: 11,
              titleFontWeight: "normal", orient: "top", gradientLength: 150, symbolStrokeWidth: 0 },
    bar: { color: colour("--first") }, rule: { color: colour("--first") },
    tick: { color: ink },
    range: {
      category: [colour("--first"), colour("--second"), "#7aa874", "#b07cc6", "#8c8c8c"],
      heatmap: { scheme: "viridis" }, ramp: { scheme: "viridis" },
    },
  };
}

const gridded = { blocks: "activation_bits", layers: "activation_bits", profile: "weight_bits" };
const line_key = { blocks: "block", layers: "layer", profile: "kind", bytes: "kind" };
const step_px = { blocks: 22, profile: 17, bytes: 17 };

function limits(chart) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of packs.flatMap((pack) => pack.layers.flatMap((layer) => layer[gridded[chart]]))) {
    [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  return low === high ? [low - 1, high + 1] : [low, high];
}

function fitted(chart, data, target) {
  const spec = structuredClone(charts[chart]);
  spec.datasets = { rows: data };
  spec.autosize = { type: "fit-x", contains: "padding" };
  if (chart in gridded) spec.encoding.color.scale = { domain: limits(chart) };
  const lines = new Set(data.map((row) => row[line_key[chart]])).size;
  if (chart === "layers") {
    const named = lines <= MOST_NAMED_ROWS;
    spec.height = lines * (named ? 14 : Math.max(1.5, Math.min(5, 700 / lines)));
    if (!named) spec.encoding.y.axis = { labels: false, ticks: false, title: null };
  } else if (chart in step_px) {
    spec.height = lines * step_px[chart];
  }
  if (target.clientWidth < 480) narrow(spec);
  return spec;
}

// On a phone, names of layers take no more than a third of the width.
function narrow(spec) {
  const axis = spec.encoding?.y?.axis;
  if (axis?.labelLimit) axis.labelLimit = 120;
  const legend = spec.encoding?.color?.legend;
  if (legend?.columns) legend.columns = 2;
}

async function plot(target, chart, data) {
  target.classList.toggle("empty", data.length === 0);
  if (data.length === 0) {
    target.textContent = "nothing to show of these layers";
    return;
  }
  const result = await vegaEmbed(target, fitted(chart, data, target), {
    actions: { export: true, source: false, compiled: false, editor: false },
    config: theme(), renderer: chart === "layers" ? "canvas" : "svg", tooltip: { theme: "custom" },
  });
  views.push(result);
}
