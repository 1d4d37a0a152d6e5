// Blocks of keys with a running maximum and sum ("online softmax": Milakov and Gimelshein 2018, Dao et
// al. 2022): scores never leave the first-level cache.
//
// For queries q, keys k, values v and scores s = q kᵀ log2(e) / sqrt(d), after every block of keys
//   m' = max(m, max s),  l' = l 2^(m - m') + sum 2^(s - m'),  o' = o 2^(m - m') + 2^(s - m') v,
// and in the end o / l. Keys are packed once per head, transposed in panels and scaled.
#include "attention.h"

#include <cmath>

#include "dot.h"
#include "parallel.h"

namespace {

constexpr int64_t kBlockKeys = 128;   // of one pass: a multiple of the panel
constexpr int64_t kTaskQueries = 96;  // a multiple of kRows
constexpr int64_t kMaxSize = 128;

inline float value_of(float x) { return x; }
inline float value_of(uint16_t x) { return from_bfloat16(x); }

template <typename Element>
const Element* head_of(const AttentionArguments& a, const AttentionTensor& t, int64_t head) {
  return static_cast<const Element*>(t.data) + head / a.heads * t.batch_stride +
         head % a.heads * t.head_stride;
}

// A panel of keys: [size][panel], zeros beyond the last key.
template <typename Element>
void pack_keys(const AttentionArguments& a, int64_t head, int64_t panel, float* to) {
  const float factor = 1.44269504f / std::sqrt((float)a.size);
  const Element* keys = head_of<Element>(a, a.keys, head);
  for (int64_t i = 0; i < kPanel; ++i) {
    const int64_t token = panel * kPanel + i;
    for (int64_t d = 0; d < a.size; ++d) {
      to[d * kPanel + i] =
          token < a.key_tokens ? value_of(keys[token * a.keys.token_stride + d]) * factor : 0;
    }
  }
}

template <typename Element>
void widen_values(const AttentionArguments& a, int64_t head, int64_t panel, float* to) {
  const Element* values = head_of<Element>(a, a.values, head);
  const int64_t end = smaller_of(a.key_tokens, (panel + 1) * kPanel);
  for (int64_t token = panel * kPanel; token < end; ++token) {
    for (int64_t d = 0; d < a.size; ++d) {
      *to++ = value_of(values[token * a.values.token_stride + d]);
    }
  }
}

struct State {
  float queries[kRows][kMaxSize];
  float output[kRows][kMaxSize];
  float scores[kRows][kBlockKeys];
  float highest[kRows];
  Floats total[kRows];
};

// y [Rows, panel] += x [Rows, count] w [count, panel], rows of w `stride` apart.
template <int Rows>
inline void multiply(const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                     int64_t count, Floats (&y)[Rows][2]) {
  for (int64_t k = 0; k < count; ++k) {
    const Floats w0 = load<Floats>(w + k * w_stride);
    const Floats w1 = load<Floats>(w + k * w_stride + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      const float value = x[r * x_stride + k];
      y[r][0] = value * w0 + y[r][0];
      y[r][1] = value * w1 + y[r][1];
    }
  }
}

// Scores of one block of `count` keys, and from them the weights 2^(s - m').
void score_block(State& state, const float* keys, int64_t count, int64_t size) {
  for (int64_t begin = 0; begin < count; begin += kPanel) {
    Floats scores[kRows][2] = {};
    multiply<kRows>(state.queries[0], kMaxSize, keys + begin * size, kPanel, size, scores);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) store(&state.scores[r][begin + v * kLanes], scores[r][v]);
    }
  }
  const int64_t filled = divided_up(count, kLanes) * kLanes;
  for (int r = 0; r < kRows; ++r) {
    float* scores = state.scores[r];
    for (int64_t i = count; i < filled; ++i) scores[i] = -INFINITY;
    Floats highest = load<Floats>(scores);
    for (int64_t i = kLanes; i < filled; i += kLanes) {
      highest = larger(highest, load<Floats>(scores + i));
    }
    const float before = state.highest[r];
    const float now = std::fmax(before, largest_of(highest));
    if (now > before) {
      const float shrink = std::exp2(before - now);
      state.total[r] = state.total[r] * shrink;
      for (int64_t d = 0; d < size; ++d) state.output[r][d] *= shrink;
      state.highest[r] = now;
    }
    Floats total = state.total[r];
    for (int64_t i = 0; i < filled; i += kLanes) {
      const Floats weight = exp2_of(load<Floats>(scores + i) - now);
      store(scores + i, weight);
      total = total + weight;
    }
    state.total[r] = total;
  }
}

// The block's values by those weights.
void add_values(State& state, const float* values, int64_t value_stride, int64_t count,
                int64_t size) {
  for (int64_t d = 0; d < size; d += kPanel) {
    Floats output[kRows][2];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) output[r][v] = load<Floats>(&state.output[r][d + v * kLanes]);
    }
    multiply<kRows>(state.scores[0], kBlockKeys, values + d, value_stride, count, output);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) store(&state.output[r][d + v * kLanes], output[r][v]);
    }
  }
}

inline void write_value(float* to, float x) { *to = x; }
inline void write_value(uint16_t* to, float x) { *to = to_bfloat16(broadcast(x))[0]; }

template <typename Element>
void attend(const AttentionArguments& a, int64_t head, int64_t query, int64_t query_count) {
  const int64_t panels = divided_up(a.key_tokens, kPanel);
  const float* keys = a.packed_keys + head * panels * kPanel * a.size;
  const float* values;
  int64_t value_stride = a.size;
  if constexpr (sizeof(Element) == 2) {
    values = a.packed_values + head * panels * kPanel * a.size;
  } else {
    values = head_of<float>(a, a.values, head);
    value_stride = a.values.token_stride;
  }
  const Element* queries = head_of<Element>(a, a.queries, head);
  Element* output = const_cast<Element*>(head_of<Element>(a, a.output, head));

  constexpr int64_t kTiles = kTaskQueries / kRows;
  alignas(64) State states[kTiles];
  const int64_t tiles = divided_up(query_count, kRows);
  for (int64_t i = 0; i < tiles * kRows; ++i) {
    State& state = states[i / kRows];
    const int64_t r = i % kRows, token = query + smaller_of(i, query_count - 1);
    for (int64_t d = 0; d < a.size; ++d) {
      state.queries[r][d] = value_of(queries[token * a.queries.token_stride + d]);
      state.output[r][d] = 0;
    }
    state.highest[r] = -INFINITY;
    state.total[r] = Floats{};
  }
  for (int64_t key = 0; key < a.key_tokens; key += kBlockKeys) {
    const int64_t count = smaller_of(kBlockKeys, a.key_tokens - key);
    for (int64_t t = 0; t < tiles; ++t) {
      score_block(states[t], keys + key * a.size, count, a.size);
    }
    for (int64_t t = 0; t < tiles; ++t) {
      add_values(states[t], values + key * value_stride, value_stride, count, a.size);
    }
  }
  for (int64_t i = 0; i < query_count; ++i) {
    const State& state = states[i / kRows];
    const float share = 1 / sum_of(state.total[i % kRows]);
    for (int64_t d = 0; d < a.size; ++d) {
      write_value(output + (query + i) * a.output.token_stride + d,
                  state.output[i % kRows][d] * share);
    }
  }
}

template <typename Element>
void run(const AttentionArguments& a) {
  const int64_t heads = a.batch * a.heads, panels = divided_up(a.key_tokens, kPanel);
  for_each_task(heads * panels, a.threads, [&](int64_t i) {
    pack_keys<Element>(a, i / panels, i % panels, a.packed_keys + i * kPanel * a.size);
    if constexpr (sizeof(Element) == 2) {
      widen_values<Element>(a, i / panels, i % panels, a.packed_values + i * kPanel * a.size);
    }
  });
  const int64_t blocks = divided_up(a.query_tokens, kTaskQueries);
  for_each_task(heads * blocks, a.threads, [&](int64_t i) {
    const int64_t query = i % blocks * kTaskQueries;
    attend<Element>(a, i / blocks, query, smaller_of(kTaskQueries, a.query_tokens - query));
  });
}

}  // namespace

void qdit4sr_attention(const AttentionArguments* arguments) {
  const AttentionArguments& a = *arguments;
  if (a.query_tokens == 0 || a.key_tokens == 0) return;
  a.is_bfloat16 ? run<uint16_t>(a) : run<float>(a);
}
