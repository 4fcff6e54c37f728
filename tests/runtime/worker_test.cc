#include "base/worker.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/status.h"
#include "harness.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

// Runs body(worker) on threads of its own, however few processors there are; gives how many of them threw TeamAborted.
template <class F> int on_threads(int count, TeamState& state, F&& body) {
  state.reset(count);
  std::atomic<int> aborted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < count; ++t)
    threads.emplace_back([&, t] {
      Worker w(t, count, &state);
      try {
        body(w);
      } catch (const TeamAborted&) {
        ++aborted;
      } catch (const Error&) {
        state.fail();
      }
    });
  for (std::thread& t : threads) t.join();
  return aborted;
}

}  // namespace

// Loops of all lengths and grains, more of them than there are counters between two barriers, with barriers here and there.
TEST(each_chunk_once) {
  TeamState state;
  for (const int count : {2, 3, 4, 9}) {
    constexpr int kLoops = 120;
    std::vector<int64_t> n, grain;
    std::vector<bool> wait;
    std::vector<std::vector<std::atomic<int>>> times;
    for (int i = 0; i < kLoops; ++i) {
      n.push_back(i % 7 == 0 ? integer(-1, 3) : integer(1, 200));
      grain.push_back(integer(0, 20));
      wait.push_back(integer(0, 9) == 0);
      times.emplace_back(static_cast<size_t>(std::max<int64_t>(n.back(), 0)));
    }
    std::atomic<bool> good{true};
    on_threads(count, state, [&](Worker& w) {
      for (int i = 0; i < kLoops; ++i) {
        const int64_t g = std::max<int64_t>(grain[i], 1);
        w.parallel_for(n[i], grain[i], [&](int64_t begin, int64_t end) {
          if (begin % g || end != std::min(begin + g, n[i])) good = false;
          for (int64_t k = begin; k < end; ++k) times[i][k].fetch_add(1, std::memory_order_relaxed);
          if (begin % 5 == 0) std::this_thread::yield();
        });
        if (wait[i]) w.barrier();
        if (i % 41 == 0 && w.agree([&] { return i; }) != i) good = false;
      }
    });
    CHECK(good);
    for (const auto& loop : times)
      for (const std::atomic<int>& t : loop) CHECK_EQ(t.load(), 1);
  }
}

TEST(what_others_wrote_is_seen_after_a_barrier) {
  TeamState state;
  for (const int count : {2, 3, 5}) {
    constexpr int64_t kN = 257;
    std::vector<int64_t> a(kN, 0), b(kN, 0);
    on_threads(count, state, [&](Worker& w) {
      for (int step = 0; step < 60; ++step) {
        w.parallel_for(kN, 3, [&](int64_t i, int64_t end) { for (; i < end; ++i) b[i] = a[kN - 1 - i] + 1; });
        w.barrier();
        w.parallel_for(kN, 5, [&](int64_t i, int64_t end) { for (; i < end; ++i) a[i] = b[kN - 1 - i]; });
        w.barrier();
      }
    });
    for (const int64_t x : a) CHECK_EQ(x, 60);
  }
}

// What thread 0 does alone it does in order, without waiting for the others; what it calls the team for, all do, after it.
TEST(thread_0_runs_ahead_until_it_calls_the_team) {
  TeamState state;
  for (const int count : {1, 2, 3, 5}) {
    constexpr int kSteps = 400;
    std::vector<bool> team;
    for (int i = 0; i < kSteps; ++i) team.push_back(integer(0, 4) == 0);
    std::vector<int> alone;
    std::vector<std::atomic<int>> together(kSteps);
    std::atomic<bool> good{true};
    on_threads(count, state, [&](Worker& w) {
      for (int i = 0; i < kSteps; ++i) {
        if (w.index() == 0 && i % 97 == 5) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the others fall asleep
        if (w.decide(w.index() == 0 && team[static_cast<size_t>(i)]) != team[static_cast<size_t>(i)]) good = false;
        if (!team[static_cast<size_t>(i)]) {
          if (w.index() == 0) alone.push_back(i);
          continue;
        }
        w.barrier();
        if (alone.size() + static_cast<size_t>(std::count(team.begin(), team.begin() + i, true)) != static_cast<size_t>(i)) good = false;
        ++together[static_cast<size_t>(i)];
        w.barrier();
      }
    });
    CHECK(good);
    for (int i = 0; i < kSteps; ++i) CHECK_EQ(together[static_cast<size_t>(i)].load(), team[static_cast<size_t>(i)] ? count : 0);
  }
}

TEST(who_waits_for_a_decision_is_told_of_a_failure) {
  TeamState state;
  for (const int count : {2, 4})
    for (const int late : {0, 3}) {  // milliseconds: the others spin, or sleep
      const int aborted = on_threads(count, state, [&](Worker& w) {
        w.decide(false);
        if (w.index() == 0) {
          std::this_thread::sleep_for(std::chrono::milliseconds(late));
          fail(Code::kFail, "on purpose");
        }
        w.decide(false);
      });
      CHECK_EQ(aborted, count - 1);
    }
}

TEST(a_thread_that_throws_ends_the_others_and_the_next_run_is_whole) {
  TeamState state;
  for (const int count : {2, 3, 4}) {
    for (int at = 0; at < 40; at += 3) {
      const int aborted = on_threads(count, state, [&](Worker& w) {
        for (int i = 0; i < 40; ++i) {
          w.parallel_for(50, 1, [&](int64_t begin, int64_t) { if (i == at && begin == 17) fail(Code::kFail, "on purpose"); });
          if (i % 3 == 0) w.barrier();
        }
        w.barrier();
      });
      CHECK_EQ(aborted, count - 1);
      std::atomic<int64_t> sum{0};
      on_threads(count, state, [&](Worker& w) {
        for (int i = 0; i < 20; ++i) w.parallel_for(100, 7, [&](int64_t begin, int64_t end) { sum += end - begin; });
      });
      CHECK_EQ(sum.load(), int64_t{2000});
    }
  }
}
