// Camera frames (8-bit I420 or NV12) to the model's pixels and back: one launch each way.
//
// Compiled by NVRTC for the card at hand, and by g++ in the tests, where to_half, from_half and
// the thread indices come from a small header. Needs no header of CUDA's own.
// Frames lie one after another without padding: height rows of luma, then chroma.
// All colour arithmetic is in 0..255; pixels hold (colour * scale + offset).

#ifdef __CUDACC_RTC__
static __device__ __forceinline__ unsigned short to_half(float value) {
  unsigned short half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
static __device__ __forceinline__ float from_half(unsigned short half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
#endif

struct Rgb {
  float red, green, blue;
};

struct ToRgb {
  float luma_scale, luma_offset, red_v, green_u, green_v, blue_u;
};

static __device__ __forceinline__ float clamp(float value, float low, float high) {
  return fminf(fmaxf(value, low), high);
}

static __device__ __forceinline__ Rgb read_rgb(const unsigned char* frame, int frame_width,
                                               int frame_height, int is_nv12, int x, int y,
                                               const ToRgb coding) {
  const unsigned char* chroma = frame + frame_width * frame_height;
  const int cell = (y >> 1) * (frame_width >> 1) + (x >> 1);
  const int u_at = is_nv12 ? 2 * cell : cell;
  const int v_at = is_nv12 ? 2 * cell + 1 : cell + (frame_width >> 1) * (frame_height >> 1);
  const float luma =
      coding.luma_scale * ((float)frame[y * frame_width + x] - coding.luma_offset);
  const float u = (float)chroma[u_at] - 128.f, v = (float)chroma[v_at] - 128.f;
  return {clamp(luma + coding.red_v * v, 0.f, 255.f),
          clamp(luma + coding.green_u * u + coding.green_v * v, 0.f, 255.f),
          clamp(luma + coding.blue_u * u, 0.f, 255.f)};
}

static __device__ __forceinline__ float mix(float a, float b, float weight) {
  return a + weight * (b - a);
}

static __device__ __forceinline__ void write_pixel(void* pixels, int is_half, size_t at,
                                                   float value) {
  if (is_half)
    ((unsigned short*)pixels)[at] = to_half(value);
  else
    ((float*)pixels)[at] = value;
}

static __device__ __forceinline__ float read_pixel(const void* pixels, int is_half, size_t at) {
  return is_half ? from_half(((const unsigned short*)pixels)[at]) : ((const float*)pixels)[at];
}

// One thread a pixel; blockIdx.z is the row of the batch. Bilinear, half-pixel centres.
extern "C" __global__ void frames_to_pixels(
    const unsigned char* frames, int frame_width, int frame_height, int is_nv12,
    float luma_scale, float luma_offset, float red_v, float green_u, float green_v, float blue_u,
    void* pixels, int width, int height, int is_half,
    int batch_stride, int plane_stride, int row_stride, int column_stride,
    float scale, float offset) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const ToRgb coding = {luma_scale, luma_offset, red_v, green_u, green_v, blue_u};
  const size_t frame_bytes = (size_t)frame_width * frame_height * 3 / 2;
  const unsigned char* frame = frames + blockIdx.z * frame_bytes;

  const float source_x =
      clamp(((float)x + .5f) * (float)frame_width / (float)width - .5f, 0.f, frame_width - 1.f);
  const float source_y =
      clamp(((float)y + .5f) * (float)frame_height / (float)height - .5f, 0.f, frame_height - 1.f);
  const int left = (int)source_x, top = (int)source_y;
  const int right = min(left + 1, frame_width - 1), bottom = min(top + 1, frame_height - 1);
  const float across = source_x - (float)left, down = source_y - (float)top;

  const Rgb a = read_rgb(frame, frame_width, frame_height, is_nv12, left, top, coding);
  const Rgb b = read_rgb(frame, frame_width, frame_height, is_nv12, right, top, coding);
  const Rgb c = read_rgb(frame, frame_width, frame_height, is_nv12, left, bottom, coding);
  const Rgb d = read_rgb(frame, frame_width, frame_height, is_nv12, right, bottom, coding);
  const float red = mix(mix(a.red, b.red, across), mix(c.red, d.red, across), down);
  const float green = mix(mix(a.green, b.green, across), mix(c.green, d.green, across), down);
  const float blue = mix(mix(a.blue, b.blue, across), mix(c.blue, d.blue, across), down);

  const size_t at = (size_t)blockIdx.z * batch_stride + (size_t)y * row_stride + x * column_stride;
  write_pixel(pixels, is_half, at, red * scale + offset);
  write_pixel(pixels, is_half, at + plane_stride, green * scale + offset);
  write_pixel(pixels, is_half, at + 2 * (size_t)plane_stride, blue * scale + offset);
}

// One thread a cell of 2 x 2 pixels, which share one u and one v: the mean of their colours.
extern "C" __global__ void pixels_to_frames(
    const void* pixels, int width, int height, int is_half,
    int batch_stride, int plane_stride, int row_stride, int column_stride,
    float scale, float offset,
    float luma_red, float luma_green, float luma_blue, float luma_offset,
    float u_red, float u_green, float u_blue, float v_red, float v_green, float v_blue,
    unsigned char* frames) {
  const int cell_x = blockIdx.x * blockDim.x + threadIdx.x;
  const int cell_y = blockIdx.y * blockDim.y + threadIdx.y;
  const int cells_across = width >> 1, cells_down = height >> 1;
  if (cell_x >= cells_across || cell_y >= cells_down) return;
  const size_t luma_bytes = (size_t)width * height;
  unsigned char* frame = frames + blockIdx.z * (luma_bytes * 3 / 2);

  Rgb mean = {0.f, 0.f, 0.f};
  for (int i = 0; i < 4; i++) {
    const int x = 2 * cell_x + (i & 1), y = 2 * cell_y + (i >> 1);
    const size_t at =
        (size_t)blockIdx.z * batch_stride + (size_t)y * row_stride + x * column_stride;
    const float red = clamp((read_pixel(pixels, is_half, at) - offset) / scale, 0.f, 255.f);
    const float green =
        clamp((read_pixel(pixels, is_half, at + plane_stride) - offset) / scale, 0.f, 255.f);
    const float blue = clamp(
        (read_pixel(pixels, is_half, at + 2 * (size_t)plane_stride) - offset) / scale, 0.f, 255.f);
    const float luma = luma_offset + luma_red * red + luma_green * green + luma_blue * blue;
    frame[(size_t)y * width + x] = (unsigned char)(luma + .5f);
    mean.red += .25f * red, mean.green += .25f * green, mean.blue += .25f * blue;
  }
  const float u = 128.f + u_red * mean.red + u_green * mean.green + u_blue * mean.blue;
  const float v = 128.f + v_red * mean.red + v_green * mean.green + v_blue * mean.blue;
  unsigned char* chroma = frame + luma_bytes;
  const int cell = cell_y * cells_across + cell_x;
  chroma[cell] = (unsigned char)clamp(u + .5f, 0.f, 255.f);
  chroma[cells_across * cells_down + cell] = (unsigned char)clamp(v + .5f, 0.f, 255.f);
}
