// Tasks of unequal length on the threads of OpenMP's pool, which torch has too.
#pragma once

#include <cstdint>

template <typename Task>
inline void for_each_task(int64_t count, int threads, const Task& task) {
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1 && count > 1)
  for (int64_t i = 0; i < count; ++i) task(i);
}

inline int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }
