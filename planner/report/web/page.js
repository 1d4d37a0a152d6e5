// Everything but the plots: text, by textContent alone, since a pack may say anything.
function element(tag, text, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  if (text !== undefined) made.textContent = text;
  return made;
}

function table(target, heads, rows) {
  const head = element("tr"), body = element("tbody"), top = element("thead");
  heads.forEach((text) => head.append(element("th", text)));
  top.append(head);
  for (const cells of rows) {
    const row = element("tr");
    cells.forEach((text) => row.append(element("td", text)));
    body.append(row);
  }
  target.replaceChildren(...(heads.length ? [top, body] : [body]));
}

const columns = [
  ["layer", (layer) => layer.name], ["shape", (layer) => `${layer.out}×${layer.in}`],
  ["bits", (layer) => layer.weight_bits], ["A bits", (layer) => range(layer.activation_bits)],
  ["global", (layer) => layer.global_rank || "–"],
  ["local", (layer) => (layer.local_block ? layer.local_block.join("×") : "–")],
  ["dB", (layer) => (layer.error_db === null ? "–" : layer.error_db.toFixed(2))],
  ["error", (layer) => (layer.error_share === null ? "–" : `${(100 * layer.error_share).toFixed(2)} %`)],
  ["bytes", (layer) => number.format(total(layer))], ["note", (layer) => layer.note],
];
const order = { column: null, down: false };

function list(kept) {
  const target = document.getElementById("rows");
  const two = packs.length > 1;
  const lines = kept.flatMap((layers, index) => layers.map((layer) => {
    const cells = columns.map(([, cell]) => cell(layer));
    return two ? [...cells, packs[index].label] : cells;
  }));
  const value = (cell) => Number.parseFloat(String(cell).replaceAll(",", ""));
  if (order.column !== null) {
    lines.sort((a, b) => {
      const [x, y] = [a[order.column], b[order.column]];
      const sign = Number.isNaN(value(x)) || Number.isNaN(value(y)) || order.column === 0
        ? String(x).localeCompare(String(y), "en", { numeric: true }) : value(x) - value(y);
      return order.down ? -sign : sign;
    });
  }
  const heads = [...columns.map(([head]) => head), ...(two ? ["pack"] : [])];
  table(target, heads, lines);
  target.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
    order.down = order.column === column && !order.down;
    order.column = column;
    list(kept);
  }));
}

function card(pack, index) {
  const { summary } = pack;
  const made = element("div", undefined, { className: `card ${index ? "second" : "first"}` });
  const figures = element("dl", undefined, { className: "figures" });
  const add = (head, text, small) => {
    const box = element("div"), definition = element("dd", text);
    if (small) definition.append(" ", element("small", small));
    box.append(element("dt", head), definition);
    figures.append(box);
  };
  add("recipe", summary.recipe);
  add("mean weight bits", summary.reached.weight_bits.toFixed(3), `target ${summary.target.weight_bits}`);
  add("mean activation bits", summary.reached.activation_bits.toFixed(3),
      `target ${summary.target.activation_bits}`);
  add("transformer", bytes(summary.transformer_bytes.pack), summary.share_of_source === null ? "" :
      `${number.format(100 * summary.share_of_source)} % of its source`);
  add("whole pack", bytes(summary.pack_bytes));
  add("layers", `${summary.quantized_layers}`, summary.kept_layers ? `and ${summary.kept_layers} in 16 bits` : "");
  if (summary.error_db) add("decoding error", `${number.format(summary.error_db.mean)} dB`,
      `${number.format(summary.error_db.lowest)} to ${number.format(summary.error_db.highest)}`);
  if (summary.modulation) add("table of modulations", bytes(summary.modulation.bytes),
      `${summary.modulation.prompts} × ${summary.modulation.steps} rows`);
  if (pack.calibration) add("calibrated on", `${pack.calibration.images} image${pack.calibration.images === 1 ? "" : "s"}`, `${pack.calibration.steps} steps`);
  made.append(element("h3", `${pack.label}: ${pack.title} ${summary.variant}`), figures);
  return made;
}

function accounts() {
  const target = document.getElementById("accounts");
  const first = packs[0].accounts;
  document.getElementById("accounts-of").textContent =
    `One picture of ${first.side_px} × ${first.side_px} px, ${first.steps} steps, ` +
    `${first.text_tokens} text tokens, one pass per step.`;
  const line = (head, show, full, part) => [head, show(full(first)), ...packs.flatMap((pack) =>
    [show(part(pack.accounts)), fewer(full(pack.accounts), part(pack.accounts))])];
  const linears = (a) => a.full_linear_operations;
  const attention = (a) => a.full_attention_operations;
  table(target, ["", "full precision", ...packs.flatMap((pack) => [pack.label, "smaller"])], [
    line("paper: parameters", millions, (a) => a.full_parameters, (a) => a.paper_parameters),
    line("paper: operations of linears", giga, linears, (a) => a.paper_operations),
    line("true: bytes, of bfloat16", bytes, (a) => a.checkpoint_bytes, (a) => a.pack_bytes),
    line("true: operations of linears", giga, linears, (a) => a.true_linear_operations),
    line("true: operations of attention", giga, attention, (a) => a.attention_operations),
    line("true: operations in total", giga, (a) => linears(a) + attention(a),
         (a) => a.true_linear_operations + a.attention_operations),
  ]);
}

function settings(pack) {
  const made = element("div"), grid = element("table");
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const lines = Object.entries({ ...pack.settings, ...Object.fromEntries(
    Object.entries(pack.sampling).map(([key, value]) => [`sampling: ${key}`, value])) });
  table(grid, [], lines.map(([key, value]) => [key, text(value)]));
  made.append(element("h3", pack.label), grid);
  return made;
}

function others(pack) {
  const made = element("div"), grid = element("table");
  table(grid, [], Object.entries(pack.other_bytes).map(([head, size]) => [head, bytes(size)]));
  made.append(grid);
  return made;
}

function frame() {
  document.body.className = packs.length > 1 ? "two" : "one";
  document.querySelector("h1").textContent = packs.map((pack) => pack.label).join(" and ");
  document.getElementById("subtitle").textContent = packs.length > 1
    ? "Two packs side by side" : `${packs[0].title} ${packs[0].summary.variant}, recipe ${packs[0].summary.recipe}`;
  document.getElementById("summary").append(...packs.map(card));
  for (const holder of document.querySelectorAll("[data-chart]")) {
    const each = holder.classList.contains("per-pack") ? packs : [null];
    holder.append(...each.map((pack) => {
      const figure = element("figure");
      if (pack && packs.length > 1) figure.append(element("figcaption", pack.label));
      figure.append(element("div", undefined, { className: "plot" }));
      return figure;
    }));
  }
  for (const section of document.querySelectorAll("[data-needs]")) {
    section.hidden = !packs.some((pack) => pack.layers.some((layer) => layer[section.dataset.needs]));
  }
  if (changed) {
    const section = document.getElementById("changed"), found = Object.entries(changed);
    const text = (value) => (value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));
    section.hidden = found.length === 0;
    section.querySelector("summary").textContent = `${found.length} settings`;
    table(section.querySelector("table"), ["setting", ...packs.map((pack) => pack.label)],
          found.map(([key, pair]) => [key, text(pair.before), text(pair.after)]));
  }
  document.getElementById("other").append(...packs.map(others));
  document.getElementById("settings").append(...packs.map(settings));
  document.querySelector("footer").textContent =
    packs.map((pack) => `${pack.label}: ${pack.producer}, checksum ${pack.checksum}`).join(" · ");
  accounts();
}

async function draw() {
  document.body.dataset.ready = "";
  const keep = matcher(document.getElementById("pattern").value.trim());
  const kept = packs.map((pack) => pack.layers.filter(keep));
  const shown = kept.map((layers, index) => `${layers.length} of ${packs[index].layers.length}`);
  document.getElementById("shown").textContent = `${shown.join(" and ")} layers`;
  views.splice(0).forEach((result) => result.finalize());
  for (const holder of document.querySelectorAll("[data-chart]")) {
    const chart = holder.dataset.chart;
    const plots = [...holder.querySelectorAll(".plot")];
    const data = packs.map((pack, index) => rows[chart](pack, kept[index]));
    const each = holder.classList.contains("per-pack") ? data : [data.flat()];
    for (const [index, target] of plots.entries()) await plot(target, chart, each[index]);
  }
  list(kept);
  document.body.dataset.ready = "true";
}

let waiting;
function later(milliseconds) {
  clearTimeout(waiting);
  document.body.dataset.ready = "";
  waiting = setTimeout(draw, milliseconds);
}

frame();
document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("pattern").addEventListener("input", () => later(200));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => later(0));
draw();
