// Integer sums in blocks that fit the caches, then scales, factors, bias and activation in one pass.
//
// A task has some tokens and some panels of output channels. Inputs are taken in slices so short that
// one panel's slice stays in the first-level cache while the tokens' codes pass by; the 32-bit sums of
// the whole task wait in the second-level cache. Codes that lie two in a byte are taken apart for such a
// slice, once for all tokens of the task.
#include "gemm.h"

#include "dot.h"
#include "half_bytes.h"
#include "multiply.h"
#include "parallel.h"

namespace {

constexpr int64_t kTaskRows = 120;  // a multiple of every variant's kRows
constexpr int64_t kTaskPanels = 256 / kPanel;
constexpr int64_t kSliceQuads = 256;  // 16 or 32 KiB of one panel

struct Task {
  int64_t row, rows, panel, panels;
};

using Sums = int32_t[kTaskPanels][kTaskRows][kPanel];

void add_products(const GemmArguments& a, const Task& task, Sums& sums) {
  const int64_t quads = divided_up(a.inputs, 4);
  const int64_t slice = divided_up(quads, divided_up(quads, kSliceQuads));
  const int depth = quads_per_sum(a.activation_bits, a.weight_bits);
  const int64_t stored = stored_quad_bytes(a.weight_bits);
  alignas(64) int8_t unpacked[kSliceQuads * kQuadBytes];
  const uint8_t* codes = a.codes + task.row * a.code_stride;
  for (int64_t begin = 0; begin < quads; begin += slice) {
    const int64_t count = smaller_of(slice, quads - begin);
    for (int64_t p = 0; p < task.panels; ++p) {
      const void* place = (const char*)a.weight + ((task.panel + p) * quads + begin) * stored;
      const int8_t* weight = (const int8_t*)place;
      if (stored != kQuadBytes) {
        unpack((const uint8_t*)place, count, a.weight_bits, unpacked);
        weight = unpacked;
      }
      for (int64_t r = 0; r < task.rows; r += kRows) {
        add_rows((int)smaller_of(kRows, task.rows - r), codes + r * a.code_stride + begin * 4,
                 a.code_stride, weight, count, depth, &sums[p][r]);
      }
    }
  }
}

template <typename Element>
inline void write(void* output, int64_t at, const Element* values, int64_t count) {
  std::memcpy(static_cast<Element*>(output) + at, values, count * sizeof(Element));
}

void write_row(const GemmArguments& a, int64_t row, int64_t channel, const Floats (&y)[2]) {
  const int64_t at = row * a.output_stride + channel;
  const int64_t count = smaller_of(kPanel, a.outputs - channel);
  if (a.output_type == kBfloat16) {
    uint16_t values[kPanel];
    for (int v = 0; v < 2; ++v) store(values + v * kLanes, to_bfloat16(y[v]));
    write(a.output, at, values, count);
  } else {
    float values[kPanel];
    for (int v = 0; v < 2; ++v) store(values + v * kLanes, y[v]);
    write(a.output, at, values, count);
  }
}

// Twice a level is the odd integer 2c - (2^b - 1) = 2s + 1, or 2c - A with A = 2^a - 1, so
//   sum (2 c_a - A) (2 s + 1) = 4 sum c_a s + (2 sum c_a - A K) - 2 A sum s
// over K inputs. Sums wrap around on the way; the result fits.
inline int32_t token_term(const GemmArguments& a, int64_t row) {
  const uint8_t* codes = a.codes + row * a.code_stride;
  int32_t sum = 0;
  for (int64_t k = 0; k < a.inputs; ++k) sum += codes[k];
  return 2 * sum - ((1 << a.activation_bits) - 1) * (int32_t)a.inputs;
}

template <int Rows>
void finish_tile(const GemmArguments& a, int64_t row, int64_t panel, const int32_t* token_terms,
                 const int32_t (*sums)[kPanel]) {
  const int64_t channel = panel * kPanel;
  const int32_t factor = -2 * ((1 << a.activation_bits) - 1);
  Ints products[Rows][2];
  for (int v = 0; v < 2; ++v) {
    const Ints offset = factor * load<Ints>(a.weight_sums + channel + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      products[r][v] = 4 * load<Ints>(&sums[r][v * kLanes]) + (offset + token_terms[r]);
    }
  }
  if (a.output_type == kDoubledProducts) {
    for (int r = 0; r < Rows; ++r) {
      write(a.output, (row + r) * a.output_stride + channel, (const int32_t*)products[r],
            smaller_of(kPanel, a.outputs - channel));
    }
    return;
  }
  Floats y[Rows][2];
  for (int v = 0; v < 2; ++v) {
    const Floats half_step = load<Floats>(a.channel_scale + channel + v * kLanes) * 0.5f;
    const Floats bias = load<Floats>(a.bias + channel + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const Floats scaled =
          __builtin_convertvector(products[r][v], Floats) * (a.token_scale[row + r] * 0.5f);
      y[r][v] = scaled * half_step + bias;
    }
  }
  if (a.coordinates != nullptr) {
    const float* coordinates = a.coordinates + row * a.rank;
    const float* up = a.up + panel * (a.global_rank + a.local_count) * kPanel;
    multiply_apart<Rows>(coordinates, a.rank, up, kPanel, a.global_rank, y);
    multiply_apart<Rows>(coordinates + a.global_rank + a.local_begin[panel], a.rank,
                   up + a.global_rank * kPanel, kPanel, a.local_count, y);
  }
  for (int r = 0; r < Rows; ++r) {
    if (a.activation == kGelu) {
      for (int v = 0; v < 2; ++v) y[r][v] = gelu_of(y[r][v]);
    }
    write_row(a, row + r, channel, y[r]);
  }
}

template <int Rows = kRows>
inline void finish_rows(int rows, const GemmArguments& a, int64_t row, int64_t panel,
                        const int32_t* token_terms, const int32_t (*sums)[kPanel]) {
  if (rows == Rows) return finish_tile<Rows>(a, row, panel, token_terms, sums);
  if constexpr (Rows > 1) finish_rows<Rows - 1>(rows, a, row, panel, token_terms, sums);
}

void run(const GemmArguments& a, const Task& task) {
  alignas(64) Sums sums;
  for (int64_t p = 0; p < task.panels; ++p) std::memset(sums[p], 0, task.rows * sizeof sums[p][0]);
  add_products(a, task, sums);
  int32_t token_terms[kTaskRows];
  for (int64_t r = 0; r < task.rows; ++r) token_terms[r] = token_term(a, task.row + r);
  for (int64_t r = 0; r < task.rows; r += kRows) {
    for (int64_t p = 0; p < task.panels; ++p) {
      finish_rows((int)smaller_of(kRows, task.rows - r), a, task.row + r, task.panel + p,
                  token_terms + r, &sums[p][r]);
    }
  }
}

}  // namespace

void qdit4sr_gemm(const GemmArguments* arguments) {
  const GemmArguments& a = *arguments;
  if (a.tokens == 0 || a.outputs == 0) return;
  const int64_t panels = divided_up(a.outputs, kPanel);
  // Row blocks of equal height; panels in fewer pieces where there are many tokens.
  const int64_t row_blocks = divided_up(a.tokens, kTaskRows);
  const int64_t rows = divided_up(divided_up(a.tokens, row_blocks), kRows) * kRows;
  const int64_t pieces = divided_up(4 * a.threads, row_blocks);
  const int64_t width = larger_of(1, smaller_of(kTaskPanels, panels / pieces));
  const int64_t panel_blocks = divided_up(panels, width);
  for_each_task(row_blocks * panel_blocks, a.threads, [&](int64_t i) {
    const int64_t row = i / panel_blocks * rows, panel = i % panel_blocks * width;
    if (row >= a.tokens) return;  // rounding up may leave the last block nothing
    run(a, {row, smaller_of(rows, a.tokens - row), panel, smaller_of(width, panels - panel)});
  });
}
