// Attention of ai.onnx: grouped heads, a cache of keys and values, masks, causal and sliding windows, soft caps, scores as an output.
// ai.tiercel.Attention (attention.cc) is the plain core that passes recognise.
#include <cmath>

#include "base/memory.h"
#include "kernels/gemm/gemm.h"
#include "ops/grad.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

enum Input { kQ, kK, kV, kMask, kPastKey, kPastValue, kLengths };

// [batch, heads, rows, size] of an operand that has four axes, or three with the heads inside a row.
struct Heads {
  Dim batch, heads, rows, size;
  bool inside;
};
template <class Ctx> Heads heads_of(const Ctx& ctx, int i, const char* attribute) {
  const Shape& s = ctx.shape(i);
  if (s.rank() == 4) return {s[0], s[1], s[2], s[3], false};
  const int64_t heads = ctx.node.attr_int(attribute, 0);
  if (s.rank() != 3) ctx.fail("Q, K and V should have 3 or 4 axes, got ", s.str());
  if (heads < 1) ctx.fail(attribute, " is required where Q, K and V have three axes");
  if (!is_symbol(s[2]) && s[2] % heads) ctx.fail("the hidden size ", s[2], " is not a multiple of ", attribute, " ", heads);
  return {s[0], heads, s[1], is_symbol(s[2]) ? s[2] : s[2] / heads, true};
}

void infer(InferContext& ctx) {
  check_real(ctx, kQ);
  const DType t = ctx.dtype(kQ);
  for (int i : {kK, kV}) ctx.check(ctx.dtype(i) == t, "Q, K and V should have one type");
  for (int i : {kPastKey, kPastValue}) if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == t, "the cache should have the type of Q");
  if (ctx.has_input(kMask)) ctx.check(ctx.dtype(kMask) == t || ctx.dtype(kMask) == DType::kBool, "the mask should be bool or have the type of Q");
  if (ctx.has_input(kLengths)) ctx.check(ctx.dtype(kLengths) == DType::kInt64, "nonpad_kv_seqlen should be int64");
  ctx.check(ctx.has_input(kPastKey) == ctx.has_input(kPastValue), "past_key and past_value go together");
  ctx.check(!ctx.has_input(kLengths) || !ctx.has_input(kPastKey), "nonpad_kv_seqlen and a cache exclude each other");
  const int64_t mode = ctx.node.attr_int("qk_matmul_output_mode", 0);
  ctx.check(mode >= 0 && mode <= 3, "qk_matmul_output_mode should be 0 to 3, got ", mode);
  for (int i = 0; i < 4; ++i) ctx.set_output(i, Type::tensor(t));
  if (!ctx.ranked(kQ) || !ctx.ranked(kK) || !ctx.ranked(kV)) return;
  const Heads q = heads_of(ctx, kQ, "q_num_heads"), k = heads_of(ctx, kK, "kv_num_heads"), v = heads_of(ctx, kV, "kv_num_heads");
  ctx.check(q.inside == k.inside && k.inside == v.inside, "Q, K and V should have one rank");
  const Dim batch = unify(ctx, unify(ctx, q.batch, k.batch, "batches of Q and K"), v.batch, "batches of K and V");
  unify(ctx, k.heads, v.heads, "heads of K and V");
  unify(ctx, k.rows, v.rows, "rows of K and V");
  if (!q.inside || (q.size >= 0 && k.size >= 0)) unify(ctx, q.size, k.size, "sizes of the heads of Q and K");
  if (q.heads >= 0 && k.heads >= 0)
    ctx.check(k.heads > 0 ? q.heads % k.heads == 0 : q.heads == 0, "heads of Q (", q.heads, ") should be a multiple of those of K (", k.heads, ")");
  Dim keys = k.rows;
  for (int i : {kPastKey, kPastValue}) {
    if (!ctx.has_input(i)) continue;
    if (!ctx.ranked(i)) { keys = ctx.fresh(); continue; }
    const Shape& p = ctx.shape(i);
    ctx.check(p.rank() == 4, "the cache should be [batch, heads, rows, size], got ", p);
    unify(ctx, p[0], batch, "batches of Q and the cache");
    unify(ctx, p[1], k.heads, "heads of K and the cache");
    const Dim size = i == kPastKey ? k.size : v.size;
    if (!is_symbol(size)) unify(ctx, p[3], size, "sizes of the heads of K or V and the cache");
    if (i == kPastValue && ctx.ranked(kPastKey)) unify(ctx, ctx.shape(kPastKey)[2], p[2], "rows of past_key and past_value");
    keys = is_symbol(p[2]) || is_symbol(k.rows) ? ctx.fresh() : p[2] + k.rows;
  }
  if (ctx.has_input(kMask) && ctx.ranked(kMask)) {
    const Shape &m = ctx.shape(kMask), scores{batch, q.heads, q.rows, keys};
    ctx.check(m.rank() >= 1 && m.rank() <= 4, "the mask should have 1 to 4 axes, got ", m);
    for (int i = 1; i <= m.rank(); ++i) {
      const Dim d = m[m.rank() - i], s = scores[4 - i];
      ctx.check(d < 0 || s < 0 || d == 1 || d == s || (i == 1 && d < s), "the mask of shape ", m, " does not fit scores of ", scores);
    }
  }
  if (ctx.has_input(kLengths) && ctx.ranked(kLengths)) {
    ctx.check(ctx.shape(kLengths).rank() == 1, "nonpad_kv_seqlen should have one axis");
    unify(ctx, ctx.shape(kLengths)[0], batch, "batches of Q and nonpad_kv_seqlen");
  }
  const bool sized = v.size >= 0 && q.heads >= 0;
  ctx.set_output(0, t, q.inside ? Shape{batch, q.rows, sized ? q.heads * v.size : q.heads == v.heads ? ctx.shape(kV)[2] : ctx.fresh()} : Shape{batch, q.heads, q.rows, v.size});
  const auto size = [&](const Heads& h) { return h.inside && is_symbol(h.size) ? ctx.fresh() : h.size; };
  ctx.set_output(1, t, {batch, k.heads, keys, size(k)});
  ctx.set_output(2, t, {batch, k.heads, keys, size(v)});
  ctx.set_output(3, t, {batch, q.heads, q.rows, keys});
}

// Where the rows of a head lie, in elements.
struct Rows {
  int64_t batch, head, row;
  int64_t at(int64_t b, int64_t h) const { return b * batch + h * head; }
};
Rows rows_of(const Heads& h) {
  return {h.heads * h.rows * h.size, h.inside ? h.size : h.rows * h.size, h.inside ? h.heads * h.size : h.size};
}

struct Plan {
  Heads q, k, v;
  int64_t keys, past;
  Rows y;
  bool has_past, bool_mask, causal;
  int64_t mask_stride[4] = {}, mask_columns = 0, left, right, mode;
  double scale, softcap;
  bool gives[4] = {};  // which outputs are asked for
  int64_t at_key = 0, at_value = 0, at_scores = 0, score_bytes = 0;  // workspace: keys and values joined to the cache, scores of each thread
};

constexpr int64_t kRows = 32;  // of a task

// One operand joined to its cache, as [batch, heads, keys, size].
template <class T> void join(const T* past, int64_t past_rows, const T* fresh, const Heads& h, int64_t keys, T* to, Worker& w) {
  const Rows from = rows_of(h);
  w.parallel_for(h.batch * h.heads * keys, grain_for(h.size), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t head = i / keys, row = i % keys;
      const T* x = row < past_rows ? past + (head * past_rows + row) * h.size
                                   : fresh + from.at(head / h.heads, head % h.heads) + (row - past_rows) * from.row;
      std::copy_n(x, h.size, to + i * h.size);
    }
  });
}

// c[m,n] = a[m,k] b[k,n], b with any strides.
template <class T> void product(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, const T* b, int64_t b_k, int64_t b_col, T* c, int64_t c_row) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (int64_t x = 0; x < k; ++x) sum += a[i * a_row + x] * b[x * b_k + j * b_col];
      c[i * c_row + j] = sum;
    }
}
void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, const float* b, int64_t b_k, int64_t b_col, float* c, int64_t c_row, float* packed) {
  if (b_col != 1) {
    gemm().pack_b(b, b_k, b_col, k, n, 0, n, packed);
    b = packed;
  }
  GemmArgs g;
  g.m = m;
  g.n = n;
  g.k = k;
  g.a = &a;
  g.a_row = a_row;
  g.b = &b;
  if (b_col == 1) g.b_row = b_k;
  g.c = c;
  g.c_row = c_row;
  gemm().gemm(g);
}

// What is added to the scores of one row; false when it leaves no key.
template <class T> bool bias_row(const Plan& p, const Args& a, int64_t batch, int64_t head, int64_t i, T* bias) {
  constexpr T kOut = -std::numeric_limits<T>::infinity();
  const int64_t* lengths = a.in<int64_t>(kLengths);
  const int64_t offset = p.has_past ? p.past : lengths ? lengths[batch] - p.q.rows : 0, at = i + offset;
  const int64_t mask = batch * p.mask_stride[0] + head * p.mask_stride[1] + i * p.mask_stride[2];
  bool any = false;
  for (int64_t j = 0; j < p.keys; ++j) {
    T b = 0;
    if (const void* m = a.in(kMask)) {
      const int64_t from = mask + j * p.mask_stride[3];
      if (p.mask_stride[3] && j >= p.mask_columns) b = kOut;
      else if (p.bool_mask) b = static_cast<const uint8_t*>(m)[from] ? T(0) : kOut;
      else b = static_cast<const T*>(m)[from];
    }
    if ((p.causal && j > at) || (p.left >= 0 && at - j > p.left) || (p.right >= 0 && j - at > p.right) || (lengths && j >= lengths[batch])) b = kOut;
    bias[j] = b;
    any |= b != kOut;
  }
  return any;
}

template <class T> void soften(T* x, int64_t n) {
  T most = -std::numeric_limits<T>::infinity();
  for (int64_t j = 0; j < n; ++j) most = std::max(most, x[j]);
  T sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += x[j] = std::exp(x[j] - most);
  for (int64_t j = 0; j < n; ++j) x[j] /= sum;
}

template <class T> void run(const Plan& p, const Args& a, Worker& w) {
  const T *K = a.in<T>(kK), *V = a.in<T>(kV);
  Rows k = rows_of(p.k), v = rows_of(p.v);
  const auto joined = [&](int past, int output, int64_t at, const Heads& h, const T*& x, Rows& rows) {
    if (!p.has_past && !p.gives[output]) return;
    T* to = p.gives[output] ? a.out<T>(output) : reinterpret_cast<T*>(a.workspace<char>() + at);
    join(a.in<T>(past), p.past, x, h, p.keys, to, w);
    x = to;
    rows = {h.heads * p.keys * h.size, p.keys * h.size, h.size};
  };
  joined(kPastKey, 1, p.at_key, p.k, K, k);
  joined(kPastValue, 2, p.at_value, p.v, V, v);
  w.barrier();
  const Rows q = rows_of(p.q);
  const int64_t blocks = ceil_div(p.q.rows, kRows), n = p.keys;
  T* const scores = reinterpret_cast<T*>(a.workspace<char>() + p.at_scores + w.index() * p.score_bytes);
  T *const bias = scores + kRows * n, *const packed = bias + n;
  w.parallel_for(p.q.batch * p.q.heads * blocks, 1, [&](int64_t task, int64_t) {
    const int64_t head = task / blocks % p.q.heads, batch = task / blocks / p.q.heads, first = task % blocks * kRows;
    const int64_t group = head / (p.q.heads / p.k.heads), m = std::min(kRows, p.q.rows - first);
    const T *from = a.in<T>(kQ) + q.at(batch, head) + first * q.row, *keys = K + k.at(batch, group), *values = V + v.at(batch, group);
    T* qk = p.gives[3] ? a.out<T>(3) + ((batch * p.q.heads + head) * p.q.rows + first) * n : nullptr;
    const auto show = [&](int64_t mode, int64_t i) { if (qk && p.mode == mode) std::copy_n(scores + i * n, n, qk + i * n); };
    if constexpr (std::is_same_v<T, float>) product(m, n, p.q.size, from, q.row, keys, 1, k.row, scores, n, packed);
    else product(m, n, p.q.size, from, q.row, keys, 1, k.row, scores, n);
    for (int64_t i = 0; i < m; ++i) {
      T* s = scores + i * n;
      for (int64_t j = 0; j < n; ++j) s[j] *= static_cast<T>(p.scale);
      show(0, i);
      if (p.softcap > 0) for (int64_t j = 0; j < n; ++j) s[j] = static_cast<T>(p.softcap) * std::tanh(s[j] / static_cast<T>(p.softcap));
      show(1, i);
      const bool any = bias_row(p, a, batch, head, first + i, bias);
      for (int64_t j = 0; j < n; ++j) s[j] += bias[j];
      show(2, i);
      if (any) soften(s, n);
      else std::fill_n(s, n, T(0));
      show(3, i);
    }
    if (!p.gives[0]) return;
    T* y = a.out<T>(0) + p.y.at(batch, head) + first * p.y.row;
    if constexpr (std::is_same_v<T, float>) product(m, p.v.size, n, scores, n, values, v.row, 1, y, p.y.row, packed);
    else product(m, p.v.size, n, scores, n, values, v.row, 1, y, p.y.row);
  });
}

void prepare(PrepareContext& ctx) {
  const Node& node = ctx.node;
  Plan p{heads_of(ctx, kQ, "q_num_heads"), heads_of(ctx, kK, "kv_num_heads"), heads_of(ctx, kV, "kv_num_heads"), 0, 0, {}, ctx.has_input(kPastKey), false,
         node.attr_int("is_causal", 0) != 0, {}, 0, node.attr_int("left_window_size", -1), node.attr_int("right_window_size", -1),
         node.attr_int("qk_matmul_output_mode", 0), 0, node.attr_float("softcap", 0)};
  for (int i = 0; i < 4; ++i) p.gives[i] = ctx.has_output(i);
  p.past = p.has_past ? ctx.shape(kPastKey)[2] : 0;
  p.keys = p.past + p.k.rows;
  p.y = rows_of({p.q.batch, p.q.heads, p.q.rows, p.v.size, p.q.inside});
  p.scale = node.has("scale") ? node.attr_float("scale", 1) : 1 / std::sqrt(static_cast<double>(std::max<int64_t>(p.q.size, 1)));
  if (ctx.has_input(kMask)) {
    const Shape& m = ctx.shape(kMask);
    p.bool_mask = ctx.dtype(kMask) == DType::kBool;
    p.mask_columns = m.back();
    int64_t stride = 1;
    for (int i = m.rank() - 1, axis = 3; i >= 0; --i, --axis) {
      p.mask_stride[axis] = m[i] == 1 && axis < 3 ? 0 : stride;  // a short last axis is not stretched: the other keys are left out
      stride *= m[i];
    }
  }
  const int64_t size = bytes_of(ctx.dtype(kQ), 1);
  const auto joined_bytes = [&](const Heads& h) { return p.has_past ? round_up(h.batch * h.heads * p.keys * h.size * size, kAlignment) : 0; };
  p.at_value = joined_bytes(p.k);
  p.at_scores = p.at_value + joined_bytes(p.v);
  const int64_t packed = ctx.dtype(kQ) == DType::kFloat ? gemm_packed_floats(gemm(), p.q.size, p.keys) : 0;
  p.score_bytes = round_up(((kRows + 1) * p.keys + packed) * size, kAlignment);
  ctx.workspace(p.at_scores + ctx.threads() * p.score_bytes);
  const double scores = static_cast<double>(p.q.batch * p.q.heads * p.q.rows) * static_cast<double>(p.keys);
  ctx.cost(scores * static_cast<double>(2 * (p.q.size + p.v.size) + 30), 2 * static_cast<double>(size) * scores);
  if (ctx.dtype(kQ) == DType::kDouble) ctx.run([p](const Args& a, Worker& w) { run<double>(p, a, w); });
  else ctx.run([p](const Args& a, Worker& w) { run<float>(p, a, w); });
}

const OpRegistration rows({{"Attention", "", 23, infer, half_as_float<prepare>}});

const GradRegistration grads({{"Attention", "", grad_rewritten}});

}  // namespace
}  // namespace tiercel
