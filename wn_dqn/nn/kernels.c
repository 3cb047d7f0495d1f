/* What torch does in several passes through memory, in one. The same operations on every element, in the same order
 * and with the same roundings: wn_dqn/kernels.py compiles this with -ffp-contract=off, so that a multiplication and an
 * addition are fused where fmaf says so and nowhere else.
 */
#include <math.h>
#include <stdint.h>

#define WORTH_A_SECOND_THREAD 32768 /* elements; torch's own measure */
#define BLOCK 4096                  /* elements that a thread takes at once */

/* One step of Adamax on n elements: m = lerp(m, d, w); u = max(beta2 u, |d| + epsilon); x -= step_size m / u; w is
 * 1 - beta1. torch's lerp starts from the nearer end, and each way wants a loop of its own to be vectorized.
 */
#define ADAMAX(LERP)                                                          \
  for (int64_t i = 0; i < n; i++) {                                           \
    const float mean = LERP;                                                  \
    const float faded = u[i] * beta2, size = fabsf(d[i]) + epsilon;           \
    /* NaN if either is */                                                    \
    const float largest = (size > faded) | (size != size) ? size : faded;     \
    m[i] = mean;                                                              \
    u[i] = largest;                                                           \
    x[i] += -step_size * mean / largest;                                      \
  }

static void adamax_some(float *restrict x, const float *restrict d, float *restrict m, float *restrict u, int64_t n,
                        float step_size, float w, float beta2, float epsilon) {
  if (w < 0.5f) {
    ADAMAX(fmaf(w, d[i] - m[i], m[i]))
  } else {
    ADAMAX(fmaf(w - 1.0f, d[i] - m[i], d[i]))
  }
}

/* Sums in float64, so that no order of them matters to the float32 that comes of it. */
static double sum_of_squares(const float *x, int64_t n) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
  return sum;
}

static void scale_to(float *x, int64_t n, double norm, double squares) {
  if (squares == 0.0) return;
  const float factor = (float)(norm / sqrt(squares));
  for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

/* The same for `count` parameters. Where there are `units`, each of these rows is scaled to the kept norm while it is in
 * the cache; where `units` is 0, the whole parameter is; where it is -1, nothing. */
void adamax(int64_t count, float *const *x, const float *const *d, float *const *m, float *const *u, const int64_t *n,
            const float *step_size, const int64_t *units, const double *kept_norm, float w, float beta2,
            float epsilon) {
  for (int64_t p = 0; p < count; p++) {
    const int64_t length = units[p] > 0 ? n[p] / units[p] : BLOCK, rows = (n[p] + length - 1) / length;
#pragma omp parallel for schedule(static) if (n[p] > WORTH_A_SECOND_THREAD)
    for (int64_t row = 0; row < rows; row++) {
      const int64_t at = row * length, size = n[p] - at < length ? n[p] - at : length;
      adamax_some(x[p] + at, d[p] + at, m[p] + at, u[p] + at, size, step_size[p], w, beta2, epsilon);
      if (units[p] > 0) scale_to(x[p] + at, size, kept_norm[p], sum_of_squares(x[p] + at, size));
    }
    if (units[p] == 0) {
      double squares = 0.0;
#pragma omp parallel for schedule(static) reduction(+ : squares) if (n[p] > WORTH_A_SECOND_THREAD)
      for (int64_t at = 0; at < n[p]; at += BLOCK)
        squares += sum_of_squares(x[p] + at, n[p] - at < BLOCK ? n[p] - at : BLOCK);
#pragma omp parallel for schedule(static) if (n[p] > WORTH_A_SECOND_THREAD)
      for (int64_t at = 0; at < n[p]; at += BLOCK)
        scale_to(x[p] + at, n[p] - at < BLOCK ? n[p] - at : BLOCK, kept_norm[p], squares);
    }
  }
}

/* Stacks of four frames, bytes [batch, 4, pixels] with `stride` bytes from one stack to the next, as x / 255 in
 * [batch, pixels, 4]. */
void unit_interval(const uint8_t *restrict stacks, float *restrict out, int64_t batch, int64_t pixels, int64_t stride) {
#pragma omp parallel for schedule(static) if (4 * batch * pixels > WORTH_A_SECOND_THREAD)
  for (int64_t b = 0; b < batch; b++) {
    const uint8_t *frames = stacks + b * stride;
    float *row = out + b * pixels * 4;
    for (int64_t i = 0; i < pixels; i++)
      for (int64_t frame = 0; frame < 4; frame++) row[i * 4 + frame] = frames[frame * pixels + i] / 255.0f;
  }
}
