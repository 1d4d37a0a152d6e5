// Smoothing, signs, rotation, token scale and codes of a layer's input, one row after the other.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

struct PrepareArguments {
  const void* input;       // [tokens, size], float32 or bfloat16
  int64_t input_stride;    // elements from row to row
  const float* gain;       // [size]: signs / smoothing / sqrt(order of a block)
  float* rotated;          // out [tokens, size]
  uint8_t* codes;          // out [tokens, size]; unused where bits is 0
  float* scale;            // out [tokens]; unused where bits is 0
  int64_t tokens;
  int64_t size;
  int64_t block;           // order of the rotation's blocks; 1 for none
  int32_t paley_order;     // 1, 12 or 20; block is that times a power of two
  int32_t bits;            // of the codes, 1 ... 8; 0 only rotates
  float root_mean_square_gain;  // scale = this * root mean square
  float absmax_gain;            //       + this * largest magnitude
  int32_t is_bfloat16;
  int32_t threads;
};

// Returns a row whose scale is not finite, or -1.
int64_t qdit4sr_prepare(const PrepareArguments* arguments);

}
#pragma GCC visibility pop
