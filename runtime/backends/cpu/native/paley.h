// The Paley I matrix (artifacts/codec/hadamard.py has the definition), signs known to the compiler.
#pragma once

template <int Order>
struct Paley {
  bool negative[Order][Order];

  constexpr Paley() : negative() {
    constexpr int q = Order - 1;
    bool square[q] = {};
    for (int i = 1; i < q; ++i) square[i * i % q] = true;
    for (int i = 0; i < Order; ++i) {
      for (int j = 0; j < Order; ++j) {
        if (i == j || i == 0) continue;  // +1: the diagonal and the first row
        negative[i][j] = j == 0 || !square[(i - j + q) % q];
      }
    }
  }
};
