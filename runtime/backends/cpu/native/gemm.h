// The product of codes, and everything that follows it in a layer.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

enum OutputType : int32_t { kFloat32 = 0, kBfloat16 = 1, kDoubledProducts = 2 };
enum Activation : int32_t { kNone = 0, kGelu = 1 };

struct GemmArguments {
  const uint8_t* codes;         // [tokens, inputs], rows of `code_stride` bytes, inputs filled up to
  int64_t code_stride;          // a multiple of 4 (with anything)
  int64_t tokens;
  int64_t inputs;
  int64_t outputs;
  const void* weight;           // int8 [panels][ceil(inputs / 4)][panel][4]: code - 2^(weight_bits - 1);
                                // up to 4 bits uint8 [panels][ceil(inputs / 4)][panel / 2][4]: the code of
                                // channel i, and that of channel i + panel / 2 times 16
  const int32_t* weight_sums;   // [panels * panel]: sum of code - 2^(weight_bits - 1) over the inputs
  const float* token_scale;     // [tokens]
  const float* channel_scale;   // [panels * panel]
  const float* bias;            // [panels * panel]
  const float* coordinates;     // [tokens, rank]: x downᵀ of both factor branches; null without
  int64_t rank;                 // of both; every panel reads the first `global_rank`
  int64_t global_rank;
  int64_t local_count;          // how many of the others each panel reads
  const int64_t* local_begin;   // [panels]: the first of them, counted behind the global ones
  const float* up;              // [panels][global_rank + local_count][panel]
  void* output;                 // [tokens, outputs], rows of `output_stride` elements
  int64_t output_stride;
  int32_t activation_bits;
  int32_t weight_bits;
  int32_t output_type;
  int32_t activation;
  int32_t threads;
};

void qdit4sr_gemm(const GemmArguments* arguments);

}
#pragma GCC visibility pop
