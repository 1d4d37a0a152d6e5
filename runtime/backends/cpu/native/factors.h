// The first half of the factor branches: coordinates of rotated tokens along both factors' rows.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

// A piece of both factors' `down`: some coordinates, over some columns.
struct DownPiece {
  int64_t column, columns;  // of the rotated token
  int64_t coordinate;       // the first one
  int64_t apart;            // from one coordinate to the next
  int64_t count;            // of coordinates, at most the panel's
  int64_t weight;           // where [columns][panel] begins in `down`, zeros beyond `count`
};

struct DownArguments {
  const float* rotated;  // [tokens, size]
  int64_t tokens;
  int64_t size;
  const float* down;
  const DownPiece* pieces;
  int64_t piece_count;
  float* coordinates;  // out [tokens, rank]
  int64_t rank;
  int32_t threads;
};

void qdit4sr_down(const DownArguments* arguments);

}
#pragma GCC visibility pop
