// Softmax attention, in float32 or with products of bfloat16.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

// Strides in elements; the last dimension is contiguous.
struct AttentionTensor {
  const void* data;
  int64_t batch_stride, head_stride, token_stride;
};

struct AttentionArguments {
  AttentionTensor queries, keys, values;  // [batch, heads, tokens, size], float32 or bfloat16
  AttentionTensor output;                 // written in spite of its const
  float* packed_keys;    // room: [batch * heads, ceil(key tokens / panel) * panel * size]
  float* packed_values;  // room: the same, for values in bfloat16; else unused
  int64_t batch, heads, query_tokens, key_tokens, size;  // size: at most 128, a multiple of the panel
  int32_t is_bfloat16;
  int32_t threads;
};

void qdit4sr_attention(const AttentionArguments* arguments);

}
#pragma GCC visibility pop
