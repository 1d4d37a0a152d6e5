// Runs every kernel on ragged sizes in buffers without slack, for the sanitizers to look at.
#include <cmath>
#include <cstdio>
#include <vector>

#include "attention.h"
#include "dot.h"
#include "factors.h"
#include "gemm.h"
#include "half_bytes.h"
#include "parallel.h"
#include "prepare.h"
#include "reorder.h"

namespace {

uint32_t state = 1;
uint32_t next() { return state = state * 1664525u + 1013904223u; }
float uniform() { return (float)(int32_t)next() / 2147483648.f; }

std::vector<float> numbers(int64_t count) {
  std::vector<float> result(count);
  for (float& x : result) x = uniform();
  return result;
}

void prepare(int64_t tokens, int64_t size, int64_t block, int paley, int bits, bool narrow) {
  const std::vector<float> input = numbers(tokens * size), gain = numbers(size);
  const std::vector<uint16_t> halves(tokens * size, 0x3f80);
  std::vector<float> rotated(tokens * size), scale(tokens);
  std::vector<uint8_t> codes(tokens * size);
  PrepareArguments a{};
  a.input = narrow ? (const void*)halves.data() : input.data();
  a.input_stride = size;
  a.gain = gain.data();
  a.rotated = rotated.data();
  a.codes = codes.data();
  a.scale = scale.data();
  a.tokens = tokens;
  a.size = size;
  a.block = block;
  a.paley_order = paley;
  a.bits = bits;
  a.root_mean_square_gain = bits % 2 ? 0.3f : 0.f;
  a.absmax_gain = bits % 2 ? 0.f : 0.1f;
  a.is_bfloat16 = narrow;
  a.threads = 2;
  if (qdit4sr_prepare(&a) != -1) std::abort();
}

void layer(int64_t tokens, int64_t inputs, int64_t outputs, int a_bits, int w_bits, int type) {
  const int64_t panels = divided_up(outputs, kPanel), quads = divided_up(inputs, 4);
  std::vector<uint8_t> codes(tokens * quads * 4);
  for (uint8_t& c : codes) c = (uint8_t)(next() >> (32 - a_bits));
  std::vector<uint8_t> weight(panels * quads * stored_quad_bytes(w_bits));
  for (uint8_t& w : weight) {
    const auto code = [&] { return (int)(next() >> (32 - w_bits)); };
    const int value = w_bits > kLargestHalfByte ? code() - (1 << (w_bits - 1)) : code() | code() << 4;
    w = (uint8_t)value;
  }
  const std::vector<int32_t> sums(panels * kPanel, 3);
  const std::vector<float> token_scale = numbers(tokens), channels = numbers(panels * kPanel);

  const int64_t global_rank = kPanel + 3, blocks = 5, rank = global_rank + blocks;
  const std::vector<float> rotated = numbers(tokens * inputs);
  std::vector<float> coordinates(tokens * rank);
  const std::vector<float> down = numbers(3 * inputs * kPanel);
  const DownPiece pieces[3] = {{0, inputs, 0, 1, kPanel, 0},
                               {0, inputs, kPanel, 1, 3, inputs * kPanel},
                               {inputs / 2, inputs - inputs / 2, global_rank, 2, 3,
                                2 * inputs * kPanel}};
  DownArguments d{};
  d.rotated = rotated.data();
  d.tokens = tokens;
  d.size = inputs;
  d.down = down.data();
  d.pieces = pieces;
  d.piece_count = 3;
  d.coordinates = coordinates.data();
  d.rank = rank;
  d.threads = 2;
  qdit4sr_down(&d);

  const std::vector<float> up = numbers(panels * (global_rank + 2) * kPanel);
  const std::vector<int64_t> local_begin(panels, blocks - 2);
  std::vector<uint8_t> output(tokens * outputs * (type == kBfloat16 ? 2 : 4));
  GemmArguments g{};
  g.codes = codes.data();
  g.code_stride = quads * 4;
  g.tokens = tokens;
  g.inputs = inputs;
  g.outputs = outputs;
  g.weight = weight.data();
  g.weight_sums = sums.data();
  g.token_scale = token_scale.data();
  g.channel_scale = channels.data();
  g.bias = channels.data();
  g.coordinates = coordinates.data();
  g.rank = rank;
  g.global_rank = global_rank;
  g.local_count = 2;
  g.local_begin = local_begin.data();
  g.up = up.data();
  g.output = output.data();
  g.output_stride = outputs;
  g.activation_bits = a_bits;
  g.weight_bits = w_bits;
  g.output_type = type;
  g.activation = tokens % 2 ? kGelu : kNone;
  g.threads = 2;
  qdit4sr_gemm(&g);
}

void reorder(int64_t rows, int64_t columns, int bits) {
  int64_t bytes = 0;
  for (const int width : {8, 4, 2, 1})
    if (bits & width) bytes += rows * divided_up(columns * width, 32) * 4;
  std::vector<uint8_t> planes(bytes);
  for (uint8_t& byte : planes) byte = (uint8_t)(next() >> 24);
  const int64_t panels = divided_up(rows, kPanel);
  std::vector<uint8_t> ordered(panels * divided_up(columns, 4) * stored_quad_bytes(bits));
  std::vector<int32_t> sums(panels * kPanel);
  ReorderArguments a{};
  a.planes = planes.data();
  a.ordered = ordered.data();
  a.sums = sums.data();
  a.rows = rows;
  a.columns = columns;
  a.bits = bits;
  a.threads = 2;
  qdit4sr_reorder(&a);
}

template <typename Element>
void attention(int64_t queries, int64_t keys, int64_t size) {
  const int64_t batch = 2, heads = 3, filled = divided_up(keys, kPanel) * kPanel;
  const auto tensor = [&](std::vector<Element>& data, int64_t tokens) {
    data.resize(batch * heads * tokens * size);
    for (Element& x : data) x = sizeof(Element) == 2 ? (Element)0x3f80 : (Element)uniform();
    return AttentionTensor{data.data(), heads * tokens * size, tokens * size, size};
  };
  std::vector<Element> q, k, v, y;
  std::vector<float> room(batch * heads * filled * size), more(room.size());
  AttentionArguments a{};
  a.queries = tensor(q, queries);
  a.keys = tensor(k, keys);
  a.values = tensor(v, keys);
  a.output = tensor(y, queries);
  a.packed_keys = room.data();
  a.packed_values = more.data();
  a.batch = batch;
  a.heads = heads;
  a.query_tokens = queries;
  a.key_tokens = keys;
  a.size = size;
  a.is_bfloat16 = sizeof(Element) == 2;
  a.threads = 2;
  qdit4sr_attention(&a);
}

}  // namespace

int main() {
  for (int bits = 1; bits <= 8; ++bits)
    for (const int64_t columns : {1, 7, 32, 45}) reorder(2 * kPanel - 3, columns, bits);
  for (int bits = 0; bits <= 8; ++bits) {
    for (const bool narrow : {false, true}) {
      prepare(17, 96, 96, 12, bits, narrow);
      prepare(1, 24, 24, 12, bits, narrow);
      prepare(3, 320, 320, 20, bits, narrow);
      prepare(5, 1056, 32, 1, bits, narrow);
      prepare(2, 4096, 4096, 1, bits, narrow);
      prepare(2, 15, 1, 1, bits, narrow);
    }
  }
  for (int a_bits = 1; a_bits <= 8; ++a_bits) {
    for (int w_bits = 1; w_bits <= 8; ++w_bits) {
      const int type = (a_bits + w_bits) % 3;
      layer(1 + a_bits * w_bits, 30 + a_bits, 5 + 3 * w_bits, a_bits, w_bits, type);
    }
  }
  layer(125, 2050, 300, 8, 8, kFloat32);  // several tasks and slices
  layer(125, 2050, 300, 4, 4, kBfloat16);
  for (const int64_t keys : {1, 31, 128, 300}) {
    attention<float>(7, keys, 64);
    attention<uint16_t>(100, keys, 32);
  }
  std::puts("done");
}
