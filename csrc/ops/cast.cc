// Cast, CastLike, BitCast. Numbers convert as kernels/cast/convert.h says; strings as numpy prints and parses numbers.
#include <charconv>
#include <cmath>
#include <cstring>

#include "ops/elementwise.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

// ---- Strings ---------------------------------------------------------------------------------------------------------

// The shortest text that reads back as x: 0.1, 100.0, 1e-07, inf, nan.
template <class T> std::string print_float(T x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  char buffer[64];
  const T magnitude = std::fabs(x);
  const bool plain = magnitude == 0 || (magnitude >= T(1e-4) && magnitude < T(1e16));
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x, plain ? std::chars_format::fixed : std::chars_format::scientific).ptr;
  std::string s(buffer, end);
  if (plain && s.find('.') == std::string::npos) s += ".0";
  return s;
}

std::string print(const void* p, DType t) {
  switch (t) {
    case DType::kFloat: return print_float(*static_cast<const float*>(p));
    case DType::kDouble: return print_float(*static_cast<const double*>(p));
    case DType::kBool: return *static_cast<const uint8_t*>(p) ? "True" : "False";
    case DType::kUInt64: return std::to_string(*static_cast<const uint64_t*>(p));
    default: return std::to_string(*static_cast<const int64_t*>(p));
  }
}

// Any number as double, and exactly as int64 when it is written as one.
struct Parsed { double real = 0; int64_t integer = 0; uint64_t natural = 0; bool exact = false; };

bool same_word(std::string_view s, std::string_view word) {
  if (s.size() != word.size()) return false;
  for (size_t i = 0; i < s.size(); ++i) if ((s[i] | 32) != word[i]) return false;
  return true;
}

bool parse(std::string_view s, Parsed& p) {
  while (!s.empty() && (s.front() == ' ' || (s.front() >= '\t' && s.front() <= '\r'))) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || (s.back() >= '\t' && s.back() <= '\r'))) s.remove_suffix(1);
  if (same_word(s, "true") || same_word(s, "false")) { p.integer = p.natural = same_word(s, "true"); p.real = static_cast<double>(p.integer); p.exact = true; return true; }
  if (!s.empty() && s.front() == '+') { s.remove_prefix(1); if (!s.empty() && s.front() == '-') return false; }
  if (s.empty()) return false;
  const char* const end = s.data() + s.size();
  const auto i = std::from_chars(s.data(), end, p.integer);
  p.exact = i.ec == std::errc() && i.ptr == end;
  const auto u = std::from_chars(s.data(), end, p.natural);
  if (u.ec == std::errc() && u.ptr == end) p.exact = true; else p.natural = static_cast<uint64_t>(p.integer);
  if (p.exact && i.ec != std::errc()) p.integer = static_cast<int64_t>(p.natural);
  const auto d = std::from_chars(s.data(), end, p.real);  // "inf" and "nan" in any case too
  if (d.ec == std::errc::result_out_of_range && d.ptr == end) { p.real = std::strtod(std::string(s).c_str(), nullptr); return true; }
  return d.ec == std::errc() && d.ptr == end;
}

void prepare_to_string(PrepareContext& ctx) {
  const DType t = ctx.dtype(0);
  const DType middle = t == DType::kDouble || t == DType::kBool || t == DType::kUInt64 ? t : is_float(t) ? DType::kFloat : DType::kInt64;
  const Convert load(t, middle);
  const int bytes = element_bytes(t);
  const int64_t n = ctx.shape(0).count();
  ctx.serial();
  ctx.run([=](const Args& args, Worker& worker) {
    if (worker.index() != 0) return;
    for (int64_t i = 0; i < n; ++i) {
      alignas(8) char value[8];
      const void* p = args.in<char>(0) + i * bytes;
      if (load) load(p, value, 1);
      args.out<std::string>(0)[i] = print(load ? value : p, middle);
    }
  });
}

void prepare_from_string(PrepareContext& ctx, NarrowMode mode) {
  const DType to = ctx.out_dtype(0);
  const Convert real(DType::kDouble, to, mode), integer(DType::kInt64, to, mode);
  const int bytes = element_bytes(to);
  const int64_t n = ctx.shape(0).count();
  ctx.serial();
  ctx.run([=, label = ctx.node.label()](const Args& args, Worker& worker) {
    if (worker.index() != 0) return;
    for (int64_t i = 0; i < n; ++i) {
      Parsed p;
      if (!parse(args.in<std::string>(0)[i], p))
        fail(Code::kInvalidArgument, label, ": \"", args.in<std::string>(0)[i], "\" is not a number");
      void* y = args.out<char>(0) + i * bytes;
      if (p.exact && to == DType::kUInt64) std::memcpy(y, &p.natural, 8);
      else if (p.exact && to == DType::kInt64) std::memcpy(y, &p.integer, 8);
      else if (p.exact && (is_integer(to) || to == DType::kBool)) integer(&p.integer, y, 1);
      else if (real) real(&p.real, y, 1);
      else std::memcpy(y, &p.real, 8);
    }
  });
}

// ---- Numbers ---------------------------------------------------------------------------------------------------------

// The whole-byte type that stands for a packed one of 2 or 4 bits; float4e2m1 is itself, a code a byte.
DType unpacked(DType t) {
  switch (t) {
    case DType::kInt4: case DType::kInt2: return DType::kInt8;
    case DType::kUInt4: case DType::kUInt2: return DType::kUInt8;
    default: return t;
  }
}

void prepare_numbers(PrepareContext& ctx, NarrowMode mode) {
  const DType from = ctx.dtype(0), to = ctx.out_dtype(0);
  const int from_bits = bits_of(from), to_bits = bits_of(to);
  const bool packed_in = from_bits < 8, packed_out = to_bits < 8;
  const DType source = unpacked(from), result = unpacked(to);
  const Convert convert(source, result, mode);
  if (!convert.valid()) ctx.fail("no conversion from ", dtype_name(from), " to ", dtype_name(to));
  if (from_bits == to_bits && !packed_in) ctx.inplace(0, 0);
  run_elementwise(ctx, ctx.shape(0).count(), is_narrow_float(to) ? 20 : 1, [=](const Args& args, int64_t begin, int64_t end) {
    const char* x = args.in<char>(0);
    char* y = args.out<char>(0);
    if (!packed_in && !packed_out) return convert(x + begin * (from_bits / 8), y + begin * (to_bits / 8), end - begin);
    TileBuffer a, b;
    for (int64_t i = begin; i < end; i += kTile) {  // tiles begin on whole bytes
      const int64_t n = std::min(kTile, end - i);
      const void* p = x + i * from_bits / 8;
      if (packed_in) unpack_bits(x, i, n, from_bits, from == DType::kInt4 || from == DType::kInt2, a.data), p = a.data;
      void* to_place = packed_out ? static_cast<void*>(b.data) : y + i * (to_bits / 8);
      if (convert) convert(p, to_place, n); else std::memcpy(to_place, p, static_cast<size_t>(n));
      if (packed_out) pack_bits(b.data, i, n, to_bits, y);
    }
  });
}

NarrowMode mode_of(const Node& node) {
  const std::string round = node.attr_string("round_mode", "up");
  return {node.attr_int("saturate", 1) != 0, round == "down" ? Rounding::kDown : round == "nearest" ? Rounding::kNearest : Rounding::kUp};
}

void prepare_cast(PrepareContext& ctx) {
  const DType from = ctx.dtype(0), to = ctx.out_dtype(0);
  if (from == to) return ctx.alias(0, 0);
  if (to == DType::kString) return prepare_to_string(ctx);
  if (from == DType::kString) return prepare_from_string(ctx, mode_of(ctx.node));
  prepare_numbers(ctx, mode_of(ctx.node));
}

// ---- Inference -------------------------------------------------------------------------------------------------------

bool is_castable(DType t) {
  return t != DType::kUndefined && t != DType::kComplex64 && t != DType::kComplex128 && static_cast<int>(t) < kNumDTypes;
}

DType dtype_by_name(const std::string& name) {  // opset 1 wrote "FLOAT"
  for (int i = 1; i < kNumDTypes; ++i) {
    const std::string_view n = dtype_name(static_cast<DType>(i));
    if (same_word(name, n)) return static_cast<DType>(i);
  }
  return DType::kUndefined;
}

void infer_as(InferContext& ctx, DType to) {
  const DType from = ctx.dtype(0);
  ctx.check(is_castable(to), "cannot cast to type ", static_cast<int>(to));
  check_dtype(ctx, 0, is_castable(from), "a tensor of numbers, bool or string");
  if (from == DType::kString || to == DType::kString)
    ctx.check(bits_of(from) >= 8 && bits_of(to) >= 8, "no conversion from ", dtype_name(from), " to ", dtype_name(to));
  const std::string round = ctx.node.attr_string("round_mode", "up");
  ctx.check(round == "up" || round == "down" || round == "nearest", "round_mode should be \"up\", \"down\" or \"nearest\", got \"", round, "\"");
  Type t = ctx.type(0);
  ctx.check(t.layout == Layout::kPlain || from == to, "the blocked layout is not supported");
  t.dtype = to;
  ctx.set_output(0, t);
  const bool whole = (is_integer(to) && bits_of(to) >= 8) || to == DType::kBool;
  if (!whole || !(is_integer(from) || from == DType::kBool)) return;
  carry_ints(ctx, [&](const auto& v) {
    if (is_symbol(v[0])) return to == DType::kInt64 || to == DType::kInt32 || to == from ? v[0] : ctx.fresh();
    if (to == DType::kBool) return Dim{v[0] != 0};
    const int bits = bits_of(to);
    if (bits == 64) return known(ctx, to, v[0]);
    const uint64_t low = static_cast<uint64_t>(v[0]) << (64 - bits);
    return is_signed(to) ? static_cast<Dim>(low) >> (64 - bits) : static_cast<Dim>(low >> (64 - bits));
  });
}

DType target(const InferContext& ctx) {
  const Attribute* to = ctx.node.attribute("to");
  ctx.check(to != nullptr, "attribute 'to' is required");
  if (const auto* name = std::get_if<std::string>(to)) return dtype_by_name(*name);
  const int64_t i = ctx.node.attr_int("to", 0);
  return i > 0 && i < kNumDTypes ? static_cast<DType>(i) : DType::kUndefined;
}

void infer_cast(InferContext& ctx) { infer_as(ctx, target(ctx)); }
void infer_cast_like(InferContext& ctx) { infer_as(ctx, ctx.dtype(1)); }

void infer_bit_cast(InferContext& ctx) {
  const DType to = target(ctx), from = ctx.dtype(0);
  ctx.check(to != DType::kUndefined && to != DType::kString && from != DType::kString, "strings have no bits to reinterpret");
  ctx.check(bits_of(to) == bits_of(from), "both types should have the same width, got ", dtype_name(from), " and ", dtype_name(to));
  Type t = ctx.type(0);
  t.dtype = to;
  ctx.set_output(0, t);
}
void prepare_bit_cast(PrepareContext& ctx) { ctx.alias(0, 0); }

static const OpRegistration rows({
    {"Cast", "", 1, infer_cast, prepare_cast},
    {"CastLike", "", 15, infer_cast_like, prepare_cast},
    {"BitCast", "", 26, infer_bit_cast, prepare_bit_cast},
});

void grad(GradContext& c) { c.set(0, c.w.op("Cast", {c.dy()}, {{"to", static_cast<int64_t>(c.w.dtype(c.x(0)))}})); }
const GradRegistration grads({{"Cast", "", grad}, {"CastLike", "", grad}});

}  // namespace
}  // namespace tiercel
