#include "ops/elementwise.h"

#include <algorithm>
#include <cstring>

namespace tiercel {
namespace {

// Short runs of memory, in pieces of 16 bytes of which the last two may overlap.
inline void copy_run(char* to, const char* from, int64_t bytes) {
  if (bytes < 16 || bytes > 256) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return;
  }
  for (int64_t i = 0; i + 16 < bytes; i += 16) std::memcpy(to + i, from + i, 16);
  std::memcpy(to + bytes - 16, from + bytes - 16, 16);
}
inline void fill_run(char* to, const char* value, int bytes, int64_t n) {
  if (bytes != 4 || n < 4 || n > 64) return fill_tile(to, value, bytes, n);
  char four[16];
  for (int i = 0; i < 16; i += 4) std::memcpy(four + i, value, 4);
  for (int64_t i = 0; i + 4 < n; i += 4) std::memcpy(to + 4 * i, four, 16);
  std::memcpy(to + 4 * n - 16, four, 16);
}

constexpr int64_t kShortRun = 64;  // patterns with shorter runs are gathered

template <class T> void fill_as(void* to, const void* value, int64_t n) {
  T v;
  std::memcpy(&v, value, sizeof(T));
  std::fill_n(static_cast<T*>(to), n, v);
}
struct Wide { uint64_t low, high; };

}  // namespace

void fill_tile(void* to, const void* value, int bytes, int64_t n) {
  switch (bytes) {
    case 1: fill_as<uint8_t>(to, value, n); break;
    case 2: fill_as<uint16_t>(to, value, n); break;
    case 4: fill_as<uint32_t>(to, value, n); break;
    case 8: fill_as<uint64_t>(to, value, n); break;
    default: fill_as<Wide>(to, value, n); break;
  }
}

std::optional<BlockedOperand> blocked_operand(const Type& operand, const Shape& out) {
  const Shape& s = operand.shape;
  if (operand.layout == Layout::kBlocked) {
    if (s.rank() != out.rank() || s[1] != out[1]) return std::nullopt;
    return BlockedOperand{storage_shape(s, Layout::kBlocked)};
  }
  int64_t count = 1;
  for (Dim d : s) count *= d == 1 ? 1 : 2;
  if (count == 1) return BlockedOperand{Shape{}};
  const int skip = out.rank() - s.rank();
  if (skip < 0 || skip > 1) return std::nullopt;
  for (int i = 0; i < s.rank(); ++i)
    if (i + skip > 1 && s[i] != 1) return std::nullopt;
  if (s[1 - skip] != out[1]) return std::nullopt;
  BlockedOperand b;
  b.rows = skip ? 1 : s[0];
  b.channels = out[1];
  b.shape = Shape{b.rows, ceil_div(b.channels, kChannelBlock)};
  for (int i = 2; i < out.rank(); ++i) b.shape.push_back(1);
  b.shape.push_back(kChannelBlock);
  return b;
}

void pad_channels(const float* x, float* y, int64_t rows, int64_t channels, float pad) {
  const int64_t padded = round_up(channels, kChannelBlock);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(x + r * channels, channels, y + r * padded);
    std::fill(y + r * padded + channels, y + (r + 1) * padded, pad);
  }
}

ElementCut::ElementCut(const PrepareContext& ctx, int64_t grain) : count_(storage_count(ctx.out_shape(0), ctx.out_layout(0))), grain_(grain) {
  constexpr int64_t kPixels = 512;  // smaller images are cut by panels of channels more often
  if (ctx.out_layout(0) != Layout::kBlocked) return;
  const Shape& shape = ctx.out_shape(0);
  for (int i = 0; i < ctx.num_inputs(); ++i)
    if (ctx.has_input(i) && !ctx.constant(i) && ctx.shape(i).count() > 1 && ctx.shape(i).count() < shape.count()) return;
  images_ = shape[0];
  blocks_ = ceil_div(shape[1], kChannelBlock);
  pixels_ = shape.count(2, shape.rank());
  if (blocks_ == 1 || pixels_ < kPixels || images_ == 0) return;
  chunks_ = ceil_div(count_ / images_, grain);
  if (chunks_ > 1) chunks_ += chunks_ % 2;  // as many for each of two threads
}

void clear_padding(float* y, const Shape& shape, int64_t begin, int64_t end) {
  const int tail = static_cast<int>(shape[1] % kChannelBlock);
  if (tail == 0 || begin >= end) return;
  const int64_t spatial = shape.count(2, shape.rank()) * kChannelBlock;  // elements of a block of channels
  const int64_t image = ceil_div(shape[1], kChannelBlock) * spatial;
  for (int64_t n = begin / image; n * image < end; ++n) {
    const int64_t last = (n + 1) * image, first = std::max(last - spatial, begin / kChannelBlock * kChannelBlock);
    for (int64_t i = first; i < std::min(last, end); i += kChannelBlock)
      for (int64_t c = std::max(i + tail, begin); c < std::min(i + kChannelBlock, end); ++c) y[c] = 0;
  }
}

Shape Operands::add_blocked(PrepareContext& ctx, int i, float pad) {
  const BlockedOperand b = *blocked_operand(Type::tensor(ctx.dtype(i), ctx.shape(i), ctx.layout(i)), ctx.out_shape(0));
  if (!b.rows) return b.shape;
  Padded p{i, b.rows, b.channels, scratch_, pad, nullptr};
  if (ctx.constant(i)) {
    p.packed = ctx.pack(i, cat("channels16:", pad), [&](const Tensor& t) {
      Buffer buffer = allocate(static_cast<size_t>(b.padded_count()) * sizeof(float));
      pad_channels(t.as<float>(), static_cast<float*>(buffer.get()), b.rows, b.channels, pad);
      return buffer;
    });
  } else {
    scratch_ += b.padded_count();
    ctx.workspace(scratch_ * static_cast<int64_t>(sizeof(float)));
  }
  padded_.push_back(std::move(p));
  return b.shape;
}

void Operands::lay_out(const Args& args, Worker& worker) const {
  if (scratch_ == 0) return;
  if (worker.index() == 0)
    for (const Padded& p : padded_)
      if (!p.packed) pad_channels(args.in<float>(p.input), args.workspace<float>() + p.offset, p.rows, p.channels, p.pad);
  worker.barrier();
}

// ---- Loops -----------------------------------------------------------------------------------------------------------

Loops::Loops(const Shape& out, const std::vector<Shape>& operands, const std::vector<int>& bytes) : count_(out.count()) {
  operands_.resize(operands.size());
  int64_t strides[kMaxRank];  // of one operand along the extents of `out`
  std::vector<std::array<int64_t, kMaxRank>> all(operands.size());
  for (size_t k = 0; k < operands.size(); ++k) {
    operands_[k].bytes = operands_[k].tile_bytes = bytes[k];
    const Shape& s = operands[k];
    const int skip = out.rank() - s.rank();
    int64_t stride = 1;
    for (int i = out.rank() - 1; i >= 0; --i) {
      const int64_t d = i >= skip ? s[i - skip] : 1;
      strides[i] = d == 1 ? 0 : stride;
      stride *= d;
    }
    std::copy_n(strides, out.rank(), all[k].begin());
  }
  // From the outside in: an extent joins the one before it when every operand walks the two as one.
  for (int i = 0; i < out.rank(); ++i) {
    if (out[i] == 1) continue;
    bool join = rank_ > 0;
    for (size_t k = 0; join && k < operands.size(); ++k)
      join = operands_[k].stride[rank_ - 1] == all[k][i] * out[i];
    if (!join) ++rank_;
    extent_[rank_ - 1] = join ? extent_[rank_ - 1] * out[i] : out[i];
    for (size_t k = 0; k < operands.size(); ++k) operands_[k].stride[rank_ - 1] = all[k][i];
  }
  if (rank_ == 0) {
    rank_ = 1;
    extent_[0] = 1;
    for (Operand& o : operands_) o.stride[0] = 1;
  }
  const int last = rank_ - 1;
  bool patterns = false, rows = false;
  for (Operand& o : operands_) {
    bool any = false;
    for (int i = 0; i < rank_; ++i) any |= o.stride[i] != 0;
    o.kind = !any ? kOne : rank_ == 1 ? kFull : kPattern;
    bool full = any;  // contiguous although another operand keeps the extents apart
    int64_t stride = 1;
    for (int i = last; i >= 0; --i) { full &= o.stride[i] == stride; stride *= extent_[i]; }
    if (full) o.kind = kFull;
    patterns |= o.kind == kPattern;
    o.access = o.kind == kOne || (o.kind == kPattern && o.stride[last] == 0) ? Access::kScalar : Access::kVector;
    if (o.kind == kPattern && last > 0 && o.stride[last] == 1 && o.stride[last - 1] == 0) rows = true;
  }
  run_ = std::max<int64_t>(count_, 1);
  if (!patterns) return;
  run_ = extent_[last];
  if (rows && run_ == kChannelBlock) {
    // Rows of 16 that repeat: two extents make a run when every operand is whole, one element, or such a row over them.
    bool possible = true;
    for (const Operand& o : operands_) {
      const int64_t inner = o.stride[last], outer = o.stride[last - 1];
      possible &= (inner == 1 && (outer == kChannelBlock || outer == 0)) || (inner == 0 && outer == 0);
    }
    if (possible) {
      for (Operand& o : operands_)
        if (o.stride[last] == 1 && o.stride[last - 1] == 0) o.access = Access::kRow;
      run_ = extent_[last] * extent_[last - 1];
      return;
    }
  }
  if (run_ < kShortRun) {
    gathers_ = true;
    run_ = count_;
  }
}

void Loops::start(Tile& t) const {
  int64_t rest = t.begin;
  for (int i = rank_ - 1; i >= 0; --i) {
    t.index[i] = rest % extent_[i];
    rest /= extent_[i];
  }
}

void Loops::advance(Tile& t) const {
  t.begin += t.n;
  if (rank_ > 1) start(t);
}

bool Loops::direct(bool scalars, bool rows) const {
  for (const Operand& o : operands_) {
    if (o.load || (o.kind == kPattern && gathers_)) return false;
    if (o.kind != kFull && ((o.access == Access::kScalar && !scalars) || (o.access == Access::kRow && !rows))) return false;
  }
  return true;
}

void Loops::gather(const Operand& o, const char* base, const Tile& tile, char* to) const {
  const int last = rank_ - 1;
  int64_t index[kMaxRank], offset = 0;
  for (int i = 0; i < rank_; ++i) {
    index[i] = tile.index[i];
    offset += index[i] * o.stride[i];
  }
  for (int64_t done = 0; done < tile.n;) {
    const int64_t n = std::min(extent_[last] - index[last], tile.n - done);
    const char* from = base + offset * o.bytes;
    if (o.stride[last]) copy_run(to, from, n * o.bytes);
    else fill_run(to, from, o.bytes, n);
    to += n * o.bytes;
    done += n;
    index[last] += n;
    offset += n * o.stride[last];
    for (int i = last; i > 0 && index[i] == extent_[i]; --i) {
      offset += o.stride[i - 1] - extent_[i] * o.stride[i];
      index[i] = 0;
      ++index[i - 1];
    }
  }
}

const void* Loops::fetch(int i, const void* base, const Tile& tile, TileBuffer& buffer, Access& access, bool scalars, bool rows) const {
  const Operand& o = operands_[i];
  const char* p = static_cast<const char*>(base);
  access = Access::kVector;
  if (o.kind == kFull) {
    p += tile.begin * o.bytes;
    if (!o.load) return p;
    buffer.filled_for = -1;
    o.load(p, buffer.data, tile.n);
    return buffer.data;
  }
  if (o.kind == kOne) {
    if (scalars && !o.load) { access = Access::kScalar; return p; }
    if (buffer.filled_for != i) {
      alignas(16) char value[16];
      if (o.load) o.load(p, value, 1);
      fill_tile(buffer.data, o.load ? value : p, o.tile_bytes, kTileBytes / o.tile_bytes);
      buffer.filled_for = i;
    }
    if (scalars) access = Access::kScalar;
    return buffer.data;
  }
  buffer.filled_for = -1;
  if (!gathers_ && o.access != Access::kRow) {
    int64_t offset = 0;
    for (int d = 0; d < rank_; ++d) offset += tile.index[d] * o.stride[d];
    p += offset * o.bytes;
    if (o.access == Access::kVector) {
      if (!o.load) return p;
      o.load(p, buffer.data, tile.n);
      return buffer.data;
    }
    if (scalars && !o.load) { access = Access::kScalar; return p; }
    alignas(16) char value[16];
    if (o.load) o.load(p, value, 1);
    fill_tile(buffer.data, o.load ? value : p, o.tile_bytes, tile.n);
    return buffer.data;
  }
  if (!gathers_ && rows && !o.load) {  // kRow
    int64_t offset = 0;
    for (int d = 0; d < rank_; ++d) offset += tile.index[d] * o.stride[d];
    access = Access::kRow;
    return p + offset * o.bytes;
  }
  if (!o.load) {
    gather(o, p, tile, buffer.data);
    return buffer.data;
  }
  TileBuffer raw;
  gather(o, p, tile, raw.data);
  o.load(raw.data, buffer.data, tile.n);
  return buffer.data;
}

// ---- Inference -------------------------------------------------------------------------------------------------------

void infer_same(InferContext& ctx) { ctx.set_output(0, ctx.type(0)); }

bool is_arithmetic(DType t) {
  switch (t) {
    case DType::kFloat: case DType::kDouble: case DType::kFloat16: case DType::kBFloat16: return true;
    default: return is_integer(t) && bits_of(t) >= 8;
  }
}

void check_dtype(InferContext& ctx, int input, bool ok, const char* expected) {
  if (!ok) ctx.fail("input ", input, " should be ", expected, ", got ", ctx.type(input).str());
}

Shape aligned_operand(const Node& node, const Shape& a, const Shape& b) {
  if (node.opset >= 7 || !node.attr_int("broadcast", 0)) return b;
  // b's extents stand for those of a from `axis` on (the last ones without it)
  const int64_t axis = node.has("axis") ? normalize_axis(node.attr_int("axis", 0), a.rank()) : a.rank() - b.rank();
  Shape s = b;
  while (axis >= 0 && s.rank() + axis < a.rank()) s.push_back(1);
  return s;
}

Shape aligned_operand(InferContext& ctx, const Shape& a, const Shape& b) {
  if (ctx.node.opset >= 7) return b;
  if (!ctx.node.attr_int("broadcast", 0)) {
    ctx.check(a.rank() == b.rank(), "shapes ", a, " and ", b, " should be equal without broadcast=1");
    for (int i = 0; i < a.rank(); ++i) unify(ctx, a[i], b[i], "extents without broadcast=1");
    return b;
  }
  if (ctx.node.has("axis")) {
    const int axis = ctx.axis(ctx.node.attr_int("axis", 0), a.rank());
    ctx.check(axis + b.rank() <= a.rank(), "shape ", b, " does not fit into ", a, " from axis ", axis);
  } else {
    ctx.check(b.rank() <= a.rank(), "shape ", b, " does not broadcast to ", a);
  }
  return aligned_operand(ctx.node, a, b);
}

void infer_broadcast(InferContext& ctx, DType result, bool mixed) {
  if (!mixed && ctx.dtype(0) != ctx.dtype(1)) ctx.fail("both inputs should have the same type");
  if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_output(0, Type::tensor(result));
  const Shape& a = ctx.shape(0);
  const Shape b = aligned_operand(ctx, a, ctx.shape(1));
  const Shape out = broadcast_shapes(ctx, a, b);
  Type type = Type::tensor(result, out);
  if (ctx.type(0).layout == Layout::kBlocked || ctx.type(1).layout == Layout::kBlocked) {
    type.layout = Layout::kBlocked;
    ctx.check(out.rank() >= 2 && result == DType::kFloat && ctx.node.opset >= 7 && blocked_operand(ctx.type(0), out) &&
                  blocked_operand(ctx.type(1), out),
              "these operands cannot be combined in the blocked layout");
  }
  ctx.set_output(0, type);
}

std::optional<std::vector<Dim>> small_ints(InferContext& ctx, int i) {
  if (!ctx.has_input(i) || !ctx.ranked(i) || ctx.shape(i).rank() > 1) return std::nullopt;
  const Tensor* constant = ctx.constant(i);
  if (constant && constant->count() > kMaxKnownInts) return std::nullopt;
  auto v = ctx.ints(i);
  if (v && constant)
    for (Dim d : *v) if (is_symbol(d)) return std::nullopt;  // a number so low that it looks like one
  return v;
}

Dim known(InferContext& ctx, DType t, __int128 value) {
  const bool fits = t == DType::kBool ? value == 0 || value == 1 : [&] {
    const int bits = bits_of(t);
    const __int128 one = 1;
    return is_signed(t) ? value >= -(one << (bits - 1)) && value < one << (bits - 1) : value >= 0 && value < one << std::min(bits, 63);
  }();
  if (!fits || is_symbol(static_cast<Dim>(value))) return ctx.fresh();
  return static_cast<Dim>(value);
}

// ---- Running ---------------------------------------------------------------------------------------------------------

DType compute_dtype(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16 ? DType::kFloat : t; }
int element_bytes(DType t) { return t == DType::kString || bits_of(t) < 8 ? 0 : bits_of(t) / 8; }

}  // namespace tiercel
