// Blocks of keys with a running maximum and sum ("online softmax": Milakov and Gimelshein 2018, Dao et
// al. 2022): scores never leave the first-level cache.
//
// For queries q, keys k, values v and scores s = q kᵀ log2(e) / sqrt(d), after every block of keys
//   m' = max(m, max s),  l' = l 2^(m - m') + sum 2^(s - m'),  o' = o 2^(m - m') + 2^(s - m') v,
// and in the end o / l. Keys are packed once per head, transposed in panels and scaled.
//
// Where the processor multiplies pairs of bfloat16 and queries, keys and values are bfloat16, both
// products take them as they are, with sums in float32; of what is computed only the weights are rounded
// (to 8 bits, at most 1 each). Elsewhere everything is widened to float32.
#include "attention.h"

#include <cmath>
#include <type_traits>

#include "multiply.h"
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

#ifdef __AVX512BF16__
constexpr bool kPairs = true;
#else
constexpr bool kPairs = false;
#endif

// What is multiplied with: bfloat16 in pairs along the sum, where the processor does that.
template <typename Element>
using Factor = std::conditional_t<kPairs && sizeof(Element) == 2, uint16_t, float>;

inline float scale_of(const AttentionArguments& a) { return 1.44269504f / std::sqrt((float)a.size); }

// A panel of keys, zeros beyond the last: [size][panel] times the scale, or [size / 2][panel][2].
template <typename Element>
void pack_keys(const AttentionArguments& a, int64_t head, int64_t panel, Factor<Element>* to) {
  constexpr bool pairs = sizeof(Factor<Element>) == 2;
  constexpr int64_t kSide = pairs ? 2 : 1;
  const float factor = scale_of(a);
  const Element* keys = head_of<Element>(a, a.keys, head);
  for (int64_t i = 0; i < kPanel; ++i) {
    const int64_t token = panel * kPanel + i;
    for (int64_t d = 0; d < a.size; ++d) {
      Factor<Element>& place = to[(d / kSide * kPanel + i) * kSide + d % kSide];
      place = 0;
      if (token >= a.key_tokens) continue;
      const Element key = keys[token * a.keys.token_stride + d];
      if constexpr (pairs) {
        place = key;
      } else {
        place = value_of(key) * factor;
      }
    }
  }
}

// A panel of values: [panel][size], or [panel / 2][size][2] with zeros beyond the last.
template <typename Element>
void pack_values(const AttentionArguments& a, int64_t head, int64_t panel, Factor<Element>* to) {
  const Element* values = head_of<Element>(a, a.values, head);
  const int64_t end = smaller_of(a.key_tokens, (panel + 1) * kPanel);
  for (int64_t token = panel * kPanel; token < end; ++token) {
    const Element* from = values + token * a.values.token_stride;
    for (int64_t d = 0; d < a.size; ++d) {
      if constexpr (sizeof(Factor<Element>) == 2) {
        to[2 * d + token % 2] = from[d];
        if (token % 2 == 0) to[2 * d + 1] = 0;
      } else {
        to[d] = value_of(from[d]);
      }
    }
    to += sizeof(Factor<Element>) == 2 ? token % 2 * 2 * a.size : a.size;
  }
}

template <typename Number>
struct State {
  Number queries[kRows][kMaxSize];
  Number weights[kRows][kBlockKeys];
  float scores[kRows][kBlockKeys];
  float output[kRows][kMaxSize];
  float highest[kRows];
  Floats total[kRows];
};

#ifdef __AVX512BF16__
inline void store_weights(uint16_t* to, Floats weights) {
  const __m256bh rounded = _mm512_cvtneps_pbh((__m512)weights);
  std::memcpy(to, &rounded, sizeof rounded);
}
#endif

inline void store_weights(float* to, Floats weights) { store(to, weights); }

// Scores of one block of `count` keys, and from them the weights 2^(s - m').
template <typename Number>
void score_block(State<Number>& state, const Number* keys, int64_t count, int64_t size,
                 float scale) {
  for (int64_t begin = 0; begin < count; begin += kPanel) {
    Floats scores[kRows][2] = {};
    multiply<kRows>(state.queries[0], kMaxSize, keys + begin * size, kPanel, size, scores);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) {
        if constexpr (sizeof(Number) == 2) scores[r][v] = scores[r][v] * scale;
        store(&state.scores[r][begin + v * kLanes], scores[r][v]);
      }
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
      const Floats weights = exp2_of(load<Floats>(scores + i) - now);
      store_weights(&state.weights[r][i], weights);
      total = total + weights;
    }
    state.total[r] = total;
  }
}

// The block's values by those weights.
template <typename Number>
void add_values(State<Number>& state, const Number* values, int64_t value_stride, int64_t count,
                int64_t size) {
  for (int64_t d = 0; d < size; d += kPanel) {
    Floats output[kRows][2];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) output[r][v] = load<Floats>(&state.output[r][d + v * kLanes]);
    }
    multiply<kRows>(state.weights[0], kBlockKeys, values + d * (sizeof(Number) == 2 ? 2 : 1),
                    value_stride, count, output);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) store(&state.output[r][d + v * kLanes], output[r][v]);
    }
  }
}

inline void take_query(float& to, float x) { to = x; }
inline void take_query(float& to, uint16_t x) { to = from_bfloat16(x); }
inline void take_query(uint16_t& to, uint16_t x) { to = x; }

inline void write_value(float* to, float x) { *to = x; }
inline void write_value(uint16_t* to, float x) { *to = to_bfloat16(broadcast(x))[0]; }

template <typename Element>
void attend(const AttentionArguments& a, int64_t head, int64_t query, int64_t query_count) {
  using Number = Factor<Element>;
  const int64_t panels = divided_up(a.key_tokens, kPanel), packed = head * panels * kPanel * a.size;
  const Number* keys = (const Number*)(void*)a.packed_keys + packed;
  const Number* values;
  int64_t value_stride = a.size;
  if constexpr (sizeof(Element) == 2) {
    values = (const Number*)(void*)a.packed_values + packed;
  } else {
    values = head_of<float>(a, a.values, head);
    value_stride = a.values.token_stride;
  }
  const Element* queries = head_of<Element>(a, a.queries, head);
  Element* output = const_cast<Element*>(head_of<Element>(a, a.output, head));

  constexpr int64_t kTiles = kTaskQueries / kRows;
  alignas(64) State<Number> states[kTiles];
  const float scale = scale_of(a);
  const int64_t tiles = divided_up(query_count, kRows);
  for (int64_t i = 0; i < tiles * kRows; ++i) {
    State<Number>& state = states[i / kRows];
    const int64_t r = i % kRows, token = query + smaller_of(i, query_count - 1);
    for (int64_t d = 0; d < a.size; ++d) {
      take_query(state.queries[r][d], queries[token * a.queries.token_stride + d]);
      state.output[r][d] = 0;
    }
    state.highest[r] = -INFINITY;
    state.total[r] = Floats{};
  }
  for (int64_t key = 0; key < a.key_tokens; key += kBlockKeys) {
    const int64_t count = smaller_of(kBlockKeys, a.key_tokens - key);
    for (int64_t t = 0; t < tiles; ++t) {
      score_block(states[t], keys + key * a.size, count, a.size, scale);
    }
    for (int64_t t = 0; t < tiles; ++t) {
      add_values(states[t], values + key * value_stride, value_stride, count, a.size);
    }
  }
  for (int64_t i = 0; i < query_count; ++i) {
    const State<Number>& state = states[i / kRows];
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
  auto* keys = (Factor<Element>*)(void*)a.packed_keys;
  auto* values = (Factor<Element>*)(void*)a.packed_values;
  for_each_task(heads * panels, a.threads, [&](int64_t i) {
    pack_keys<Element>(a, i / panels, i % panels, keys + i * kPanel * a.size);
    if constexpr (sizeof(Element) == 2) {
      pack_values<Element>(a, i / panels, i % panels, values + i * kPanel * a.size);
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
