// What yuv420.cu needs of CUDA, for g++: thread indices, half floats, and a launch that reads
// each argument from its own bytes, as a CUDA launch does.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
using std::min;

struct Index {
  unsigned int x, y, z;
};
static thread_local Index threadIdx, blockIdx, blockDim;

static inline unsigned short to_half(float value) {
  const _Float16 half = (_Float16)value;
  unsigned short bits;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}

static inline float from_half(unsigned short bits) {
  _Float16 half;
  std::memcpy(&half, &bits, sizeof half);
  return (float)half;
}

template <class... Arguments, std::size_t... at>
static void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<at...>) {
  kernel(*static_cast<Arguments*>(arguments[at])...);
}

template <class... Arguments>
static void launch(void (*kernel)(Arguments...), const unsigned int* grid,
                   const unsigned int* block, void** arguments) {
  blockDim = {block[0], block[1], block[2]};
  for (unsigned int z = 0; z < grid[2] * block[2]; z++)
    for (unsigned int y = 0; y < grid[1] * block[1]; y++)
      for (unsigned int x = 0; x < grid[0] * block[0]; x++) {
        blockIdx = {x / block[0], y / block[1], z / block[2]};
        threadIdx = {x % block[0], y % block[1], z % block[2]};
        call(kernel, arguments, std::index_sequence_for<Arguments...>{});
      }
}
