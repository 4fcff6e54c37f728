// A minimal test harness for the C++ tests: TEST(name) { CHECK(...); }, seeded data, comparison in units of epsilon.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/status.h"

namespace tiercel::testing {

struct Case { const char* name; void (*body)(); };
inline std::vector<Case>& cases() { static std::vector<Case> c; return c; }
inline int& failures() { static int n = 0; return n; }
inline std::string& scope() { static std::string s; return s; }  // "avx512 M=3 N=5": printed with a failure

struct Register { Register(const char* name, void (*body)()) { cases().push_back({name, body}); } };

inline void report(const char* file, int line, const std::string& what) {
  if (++failures() <= 50) std::printf("  FAIL %s:%d: %s %s\n", file, line, what.c_str(), scope().c_str());
}

inline std::mt19937_64& rng() { static std::mt19937_64 g(20240607); return g; }
inline float uniform(float lo = -1, float hi = 1) { return std::uniform_real_distribution<float>(lo, hi)(rng()); }
inline int64_t integer(int64_t lo, int64_t hi) { return std::uniform_int_distribution<int64_t>(lo, hi)(rng()); }
inline std::vector<float> random_floats(size_t n, float lo = -1, float hi = 1) {
  std::vector<float> v(n);
  for (float& x : v) x = uniform(lo, hi);
  return v;
}

// Largest |a - b| over `scale`; infinite where NaN-ness or an infinity differs.
inline double max_error(const float* a, const float* b, size_t n, double scale = 1) {
  double worst = 0;
  for (size_t i = 0; i < n; ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double d = std::fabs(static_cast<double>(a[i]) - b[i]) / scale;
    if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

// Calls f(isa) for each ISA that runs on this machine.
template <class F> void for_each_isa(F f) {
  for (Isa isa : kAllIsas)
    if (isa_runs(isa)) { scope() = std::string("[") + std::string(isa_name(isa)) + "]"; f(isa); }
  scope().clear();
}

inline int run_all(int argc, char** argv) {
  int run = 0, failed = 0;
  for (const Case& c : cases()) {
    if (argc > 1 && !std::strstr(c.name, argv[1])) continue;
    ++run;
    const int before = failures();
    try { c.body(); } catch (const std::exception& e) { report(c.name, 0, std::string("threw: ") + e.what()); }
    if (failures() != before) { ++failed; std::printf("FAILED %s\n", c.name); }
  }
  std::printf("%d passed, %d failed\n", run - failed, failed);
  return failed || !run;
}

}  // namespace tiercel::testing

#define TEST(name)                                                            \
  static void test_##name();                                                  \
  static ::tiercel::testing::Register register_##name(#name, &test_##name);   \
  static void test_##name()
#define CHECK(cond) \
  do { if (!(cond)) ::tiercel::testing::report(__FILE__, __LINE__, #cond); } while (0)
#define CHECK_EQ(a, b)                                                                                        \
  do {                                                                                                        \
    const auto va_ = (a); const auto vb_ = (b);                                                               \
    if (!(va_ == vb_)) ::tiercel::testing::report(__FILE__, __LINE__, ::tiercel::cat(#a " == " #b ": ", va_, " vs ", vb_)); \
  } while (0)
// |error| at most `bound`
#define CHECK_BELOW(error, bound)                                                                             \
  do {                                                                                                        \
    const double ve_ = (error); const double vb_ = (bound);                                                   \
    if (!(ve_ <= vb_)) ::tiercel::testing::report(__FILE__, __LINE__, ::tiercel::cat(#error " = ", ve_, " above ", vb_)); \
  } while (0)
#define CHECK_THROWS(expr, part)                                                                              \
  do {                                                                                                        \
    try { (void)(expr); ::tiercel::testing::report(__FILE__, __LINE__, #expr " did not throw"); }             \
    catch (const ::tiercel::Error& e_) {                                                                      \
      if (std::string(e_.what()).find(part) == std::string::npos)                                             \
        ::tiercel::testing::report(__FILE__, __LINE__, ::tiercel::cat("message lacks \"", part, "\": ", e_.what())); \
    }                                                                                                         \
  } while (0)
#define TEST_MAIN() int main(int argc, char** argv) { return ::tiercel::testing::run_all(argc, argv); }
