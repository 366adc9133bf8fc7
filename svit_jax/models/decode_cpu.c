// Custom calls of XLA's for decoding on a CPU, in float32; see decode_cpu.py.
//
//   svit_few_rows        y = x w^T of a few rows x; w in float32, bfloat16 or int8
//   svit_attend_cached   attention of one token a row over its cache
//   svit_rotate          rotary positions
//
// All take as long as it takes to read w, keys and values, or x. So these are read once and in the
// order in which they lie, by all of XLA's threads. What is made of a row is made in one order,
// whatever else is computed beside it and by whichever thread.

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define LINE 16  // floats in a line of cache

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));

// Or a compiler reads the vector from memory again for each product that it is in.
#if defined(__x86_64__)
#define IN_A_REGISTER(vector) __asm__("" : "+x"(vector))
#else
#define IN_A_REGISTER(vector)
#endif

static inline Vector load(const float *from) { return *(const Vector *)from; }

// The sum of a vector's lanes, by halves.
static inline float total(Vector vector) {
  float lanes[LANES];
  memcpy(lanes, &vector, sizeof lanes);
  for (int half = LANES / 2; half; half /= 2)
    for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
  return lanes[0];
}

// ---- Work in pieces, taken by threads as they come to them

typedef struct Work {
  void (*piece)(const struct Work *, int64_t n);
  const float *inputs[3];
  const int32_t *positions;
  float *output;
  int64_t sizes[4];
  int64_t pieces;
  atomic_llong taken, done, holders;
} Work;

static void let_go(Work *work) {
  if (atomic_fetch_sub(&work->holders, 1) == 1) free(work);
}

static void take_pieces(Work *work) {
  for (int64_t n; (n = atomic_fetch_add(&work->taken, 1)) < work->pieces;) {
    work->piece(work, n);
    atomic_fetch_add(&work->done, 1);
  }
}

static void task(void *work) {
  take_pieces(work);
  let_go(work);
}

// Ends the error, if there is one.
static int is_failure(const XLA_FFI_CallFrame *frame, XLA_FFI_Error *error) {
  if (!error) return 0;
  XLA_FFI_Error_Destroy_Args args = {.struct_size = XLA_FFI_Error_Destroy_Args_STRUCT_SIZE,
                                     .error = error};
  frame->api->XLA_FFI_Error_Destroy(&args);
  return 1;
}

// How many threads XLA computes with.
static int64_t threads_of(const XLA_FFI_CallFrame *frame) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {
      .struct_size = XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE,
      .ctx = frame->ctx,
      .num_threads = &threads};
  return is_failure(frame, frame->api->XLA_FFI_ThreadPool_NumThreads(&args)) ? 1 : threads;
}

static XLA_FFI_Error *failure(const XLA_FFI_CallFrame *frame, const char *message) {
  XLA_FFI_Error_Create_Args args = {.struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE,
                                    .message = message,
                                    .errc = XLA_FFI_Error_Code_INVALID_ARGUMENT};
  return frame->api->XLA_FFI_Error_Create(&args);
}

// Does all pieces, with what help XLA's threads give (where it has any): a task that comes too late
// finds none left.
static XLA_FFI_Error *run(XLA_FFI_CallFrame *frame, const Work *asked) {
  Work *work = malloc(sizeof *work);
  if (!work) return failure(frame, "no memory for a product's work");
  *work = *asked;
  atomic_init(&work->holders, 1);
  const int64_t threads = threads_of(frame);
  for (int64_t n = 1; n < threads && n < work->pieces; n++) {
    atomic_fetch_add(&work->holders, 1);
    XLA_FFI_ThreadPool_Schedule_Args one = {
        .struct_size = XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE,
        .ctx = frame->ctx,
        .task = task,
        .data = work};
    if (is_failure(frame, frame->api->XLA_FFI_ThreadPool_Schedule(&one))) {
      let_go(work);
      break;
    }
  }
  take_pieces(work);
  // A piece that isn't done by now is in the hands of a thread that does it.
  for (int spins = 0; atomic_load(&work->done) < work->pieces; spins++)
    if (spins > 1000) sched_yield();
  let_go(work);
  return NULL;
}

// What XLA asks of each call before it makes any: which version of its interface this is for.
static int is_question(XLA_FFI_CallFrame *frame) {
  const XLA_FFI_Metadata_Extension *extension = (const void *)frame->extension_start;
  if (!extension || extension->extension_base.type != XLA_FFI_Extension_Metadata) return 0;
  extension->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  extension->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

static int is_array(const XLA_FFI_Buffer *buffer, XLA_FFI_DataType type, int64_t rank) {
  return buffer->dtype == type && buffer->rank == rank;
}

// ---- y = x w^T

#define ROWS 4             // of x, and
#define COLUMNS 2          // of y: so many sums are in registers
#define PIECE (256 << 10)  // floats of w times 4

enum { B, I, O, STEP };  // rows, inputs and outputs; outputs of a piece

typedef enum { FLOAT, BFLOAT, INT8 } Type;  // of w

// Weights `at` and after, as floats. The type is a constant where this is inlined. In words of the
// processor where a compiler doesn't find them.
static inline __attribute__((always_inline)) Vector weights(const void *w, int64_t at, Type type) {
  const float *floats = (const float *)w + at;
  const uint16_t *halves = (const uint16_t *)w + at;
  const int8_t *bytes = (const int8_t *)w + at;
  if (type == FLOAT) return load(floats);
#if defined(__AVX512F__)
  if (type == INT8)
    return (Vector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)bytes)));
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)halves));
  return (Vector)_mm512_slli_epi32(wide, 16);
#elif defined(__AVX2__)
  if (type == INT8)
    return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)bytes)));
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)halves));
  return (Vector)_mm256_slli_epi32(wide, 16);
#else
  union {
    Vector vector;
    float floats[LANES];
    uint32_t words[LANES];
  } wide;
  for (int l = 0; l < LANES; l++)
    if (type == INT8) wide.floats[l] = bytes[l];
    else wide.words[l] = (uint32_t)halves[l] << 16;
  return wide.vector;
#endif
}

static inline float weight(const void *w, int64_t at, Type type) {
  if (type == INT8) return ((const int8_t *)w)[at];
  if (type == FLOAT) return ((const float *)w)[at];
  const uint32_t wide = (uint32_t)((const uint16_t *)w)[at] << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

static inline void fetch(const void *w, int64_t at, Type type) {
  __builtin_prefetch((const char *)w + at * (type == INT8 ? 1 : type == BFLOAT ? 2 : 4));
}

// Sums of `rows` rows and `columns` outputs, both constants where this is inlined. The rows of w
// that are next are fetched meanwhile, a share of them with each block of x's rows.
static inline __attribute__((always_inline)) void block(
    const Work *of, int64_t row, int64_t column, int rows, int columns, Type type) {
  const int64_t inputs = of->sizes[I], blocks = (of->sizes[B] + ROWS - 1) / ROWS;
  const int64_t place = column * inputs;
  const float *x = of->inputs[0] + row * inputs;
  const void *w = of->inputs[1];
  Vector sums[ROWS][COLUMNS] = {0};
  int64_t i = 0;
  for (; i + LINE <= inputs; i += LINE) {
    for (int64_t c = row / ROWS; c < columns; c += blocks)
      fetch(w, place + (columns + c) * inputs + i, type);
    for (int l = 0; l < LINE; l += LANES) {
      Vector ws[COLUMNS];
      for (int c = 0; c < columns; c++) {
        ws[c] = weights(w, place + c * inputs + i + l, type);
        IN_A_REGISTER(ws[c]);
      }
      for (int r = 0; r < rows; r++) {
        Vector xs = load(x + r * inputs + i + l);
        IN_A_REGISTER(xs);
        for (int c = 0; c < columns; c++) sums[r][c] += xs * ws[c];
      }
    }
  }
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) {
      float sum = total(sums[r][c]);
      for (int64_t j = i; j < inputs; j++)
        sum += x[r * inputs + j] * weight(w, place + c * inputs + j, type);
      of->output[(row + r) * of->sizes[O] + column + c] = sum;
    }
}

static inline __attribute__((always_inline)) void piece_of(const Work *of, int64_t n, Type type) {
  const int64_t rows = of->sizes[B], outputs = of->sizes[O];
  int64_t column = n * of->sizes[STEP], end = column + of->sizes[STEP];
  if (end > outputs) end = outputs;
  for (; column + COLUMNS <= end; column += COLUMNS) {
    int64_t row = 0;
    for (; row + ROWS <= rows; row += ROWS) block(of, row, column, ROWS, COLUMNS, type);
    for (; row + 2 <= rows; row += 2) block(of, row, column, 2, COLUMNS, type);
    for (; row < rows; row++) block(of, row, column, 1, COLUMNS, type);
  }
  for (; column < end; column++)
    for (int64_t row = 0; row < rows; row++) block(of, row, column, 1, 1, type);
}

static void float_piece(const Work *of, int64_t n) { piece_of(of, n, FLOAT); }
static void bfloat_piece(const Work *of, int64_t n) { piece_of(of, n, BFLOAT); }
static void int8_piece(const Work *of, int64_t n) { piece_of(of, n, INT8); }

XLA_FFI_Error *svit_few_rows(XLA_FFI_CallFrame *frame) {
  if (is_question(frame)) return NULL;
  const XLA_FFI_Buffer *x = frame->args.args[0], *w = frame->args.args[1];
  const XLA_FFI_Buffer *y = frame->rets.rets[0];
  void (*piece)(const Work *, int64_t) = w->dtype == XLA_FFI_DataType_F32    ? float_piece
                                         : w->dtype == XLA_FFI_DataType_BF16 ? bfloat_piece
                                         : w->dtype == XLA_FFI_DataType_S8   ? int8_piece
                                                                             : NULL;
  if (!is_array(x, XLA_FFI_DataType_F32, 2) || !piece || w->rank != 2 || x->dims[1] != w->dims[1])
    return failure(frame, "svit_few_rows takes x [B, I] in float32 and w [O, I] in float32, "
                          "bfloat16 or int8");
  const int64_t inputs = x->dims[1], outputs = w->dims[0];
  const int64_t blocks = PIECE / (4 * COLUMNS * (inputs + 1)), step = COLUMNS * (blocks + !blocks);
  const Work work = {.piece = piece,
                     .inputs = {x->data, w->data},
                     .output = y->data,
                     .sizes = {[B] = x->dims[0], [I] = inputs, [O] = outputs, [STEP] = step},
                     .pieces = (outputs + step - 1) / step};
  return run(frame, &work);
}

// ---- Attention over a cache

#define SLOTS 64  // at a time

enum { K, G, S, H };  // heads of the cache, queries of each, slots, size of a head

static inline float dot(const float *a, const float *b, int64_t size) {
  Vector sums = {0};
  int64_t h = 0;
  for (; h + LANES <= size; h += LANES) sums += load(a + h) * load(b + h);
  float sum = total(sums);
  for (; h < size; h++) sum += a[h] * b[h];
  return sum;
}

// y = keep * y + the sum of weights[s] v[s]
static void add_values(
    float *y, float keep, const float *weights, const float *v, int64_t slots, int64_t size) {
  int64_t h = 0;
  for (; h + 4 * LANES <= size; h += 4 * LANES) {
    Vector sums[4];
    for (int n = 0; n < 4; n++) sums[n] = keep * load(y + h + n * LANES);
    for (int64_t s = 0; s < slots; s++)
      for (int n = 0; n < 4; n++) sums[n] += weights[s] * load(v + s * size + h + n * LANES);
    memcpy(y + h, sums, sizeof sums);
  }
  for (; h < size; h++) {
    float sum = keep * y[h];
    for (int64_t s = 0; s < slots; s++) sum += weights[s] * v[s * size + h];
    y[h] = sum;
  }
}

// Softmax as slots are read, with the largest score so far taken off (Milakov and Gimelshein, arXiv
// 1805.02867).
static void head_piece(const Work *of, int64_t n) {
  const int64_t size = of->sizes[H], slots = of->sizes[S], groups = of->sizes[G];
  const float *k = of->inputs[1] + n * slots * size, *v = of->inputs[2] + n * slots * size;
  const float scale = 1 / sqrtf((float)size);
  int64_t seen = (int64_t)of->positions[n / of->sizes[K]] + 1;
  if (seen > slots) seen = slots;
  for (int64_t g = n * groups; g < (n + 1) * groups; g++) {
    const float *q = of->inputs[0] + g * size;
    float *y = of->output + g * size;
    memset(y, 0, size * sizeof *y);
    float largest = -INFINITY, sum = 0;
    for (int64_t start = 0; start < seen; start += SLOTS) {
      const int64_t count = seen - start < SLOTS ? seen - start : SLOTS;
      float weights[SLOTS], larger = largest;
      for (int64_t s = 0; s < count; s++) {
        weights[s] = scale * dot(q, k + (start + s) * size, size);
        if (weights[s] > larger) larger = weights[s];
      }
      const float keep = expf(largest - larger);
      sum *= keep;
      for (int64_t s = 0; s < count; s++) {
        weights[s] = expf(weights[s] - larger);
        sum += weights[s];
      }
      add_values(y, keep, weights, v + start * size, count, size);
      largest = larger;
    }
    for (int64_t h = 0; h < size; h++) y[h] /= sum;
  }
}

XLA_FFI_Error *svit_attend_cached(XLA_FFI_CallFrame *frame) {
  if (is_question(frame)) return NULL;
  const XLA_FFI_Buffer *q = frame->args.args[0], *k = frame->args.args[1];
  const XLA_FFI_Buffer *v = frame->args.args[2], *positions = frame->args.args[3];
  const XLA_FFI_Buffer *y = frame->rets.rets[0];
  if (!is_array(q, XLA_FFI_DataType_F32, 4) || !is_array(k, XLA_FFI_DataType_F32, 4) ||
      !is_array(v, XLA_FFI_DataType_F32, 4) || !is_array(positions, XLA_FFI_DataType_S32, 1))
    return failure(frame, "svit_attend_cached takes q [B, K, G, H], k and v [B, K, S, H] in "
                          "float32 and positions [B] in int32");
  const Work work = {.piece = head_piece,
                     .inputs = {q->data, k->data, v->data},
                     .positions = positions->data,
                     .output = y->data,
                     .sizes = {[K] = q->dims[1], [G] = q->dims[2], [S] = k->dims[2], [H] = q->dims[3]},
                     .pieces = q->dims[0] * q->dims[1]};
  return run(frame, &work);
}

// ---- Rotary positions

#define PIECE_ROTATED (32 << 10)  // bytes of x

enum { TOKENS, HEADS, HALF, TOKENS_OF_PIECE };

static void rotate_piece(const Work *of, int64_t n) {
  const int64_t heads = of->sizes[HEADS], half = of->sizes[HALF];
  int64_t token = n * of->sizes[TOKENS_OF_PIECE], end = token + of->sizes[TOKENS_OF_PIECE];
  if (end > of->sizes[TOKENS]) end = of->sizes[TOKENS];
  for (; token < end; token++) {
    const float *cosine = of->inputs[1] + token * half, *sine = of->inputs[2] + token * half;
    for (int64_t head = token * heads; head < (token + 1) * heads; head++) {
      const float *restrict first = of->inputs[0] + 2 * head * half, *second = first + half;
      float *restrict y = of->output + 2 * head * half;
      for (int64_t h = 0; h < half; h++) {
        y[h] = first[h] * cosine[h] - second[h] * sine[h];
        y[half + h] = second[h] * cosine[h] + first[h] * sine[h];
      }
    }
  }
}

XLA_FFI_Error *svit_rotate(XLA_FFI_CallFrame *frame) {
  if (is_question(frame)) return NULL;
  const XLA_FFI_Buffer *x = frame->args.args[0], *cosine = frame->args.args[1];
  const XLA_FFI_Buffer *sine = frame->args.args[2], *y = frame->rets.rets[0];
  if (!is_array(x, XLA_FFI_DataType_F32, 4) || !is_array(cosine, XLA_FFI_DataType_F32, 4) ||
      !is_array(sine, XLA_FFI_DataType_F32, 4))
    return failure(frame, "svit_rotate takes x [B, T, N, 2 h], cos and sin [B, T, 1, h] in float32");
  const int64_t tokens = x->dims[0] * x->dims[1], heads = x->dims[2], half = cosine->dims[3];
  const int64_t fitting = PIECE_ROTATED / (8 * heads * half + 1), of_piece = fitting + !fitting;
  const Work work = {
      .piece = rotate_piece,
      .inputs = {x->data, cosine->data, sine->data},
      .output = y->data,
      .sizes = {[TOKENS] = tokens, [HEADS] = heads, [HALF] = half, [TOKENS_OF_PIECE] = of_piece},
      .pieces = (tokens + of_piece - 1) / of_piece};
  return run(frame, &work);
}
