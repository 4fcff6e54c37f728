// What a session keeps between runs: packed constants, Programs for recent shapes, arenas.
#pragma once
#include <list>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/fork.h"
#include "runtime/program.h"

namespace tiercel {

// Packings of constants, made once each: values that are the same memory (exporters write Identity of a weight that layers share) have one.
// A constant that lies in a file map gives its pages back once it is packed.
class SessionPacks final : public PackCache {
 public:
  explicit SessionPacks(int threads) : threads_(threads) {}
  // Packings that `before` has of memory that constants of `graph` and its bodies still are.
  void inherit(SessionPacks& before, Graph& graph);
  Buffer get(const Value* weight, const std::string& key, const std::function<Buffer()>& pack) override;
  void split(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& f) override;
  int64_t bytes() const { return bytes_; }

 private:
  struct Entry { std::once_flag once; Buffer buffer; std::atomic<int64_t> bytes{0}; };
  using Packings = std::vector<std::pair<std::string, std::shared_ptr<Entry>>>;  // the few of a constant
  using Key = std::tuple<const void*, DType, Layout, std::vector<Dim>>;
  static Key key_of(const Tensor& t);
  const int threads_;
  ForkSafeMutex mutex_;
  std::map<Key, Packings> entries_;
  std::atomic<int64_t> bytes_{0};
};

// Programs of one graph for recent sets of input shapes, with the frames of past runs. Least recently used go first when there are more than
// the capacity, or more than eight that take more than kProgramBytes.
class ProgramCache {
 public:
  ProgramCache(std::shared_ptr<const Graph> graph, BuildOptions options, int capacity)
      : graph_(std::move(graph)), rows_(rows_of(*graph_)), options_(options), capacity_(capacity < 1 ? 1 : capacity) {}

  std::shared_ptr<const Program> find_or_build(std::span<const InputKey> keys);
  // A frame for a run, given back (or destroyed, after an error) when the Lease ends.
  class Lease {
   public:
    Lease(ProgramCache& cache, std::unique_ptr<Frame> frame) : cache_(&cache), frame_(std::move(frame)) {}
    Lease(Lease&&) = default;
    ~Lease() { if (frame_ && ok_) cache_->give_back(std::move(frame_)); }
    Frame& operator*() const { return *frame_; }
    Frame* operator->() const { return frame_.get(); }
    void done() { ok_ = true; }  // the run ended well: the frame may be used again

   private:
    ProgramCache* cache_;
    std::unique_ptr<Frame> frame_;
    bool ok_ = false;
  };
  Lease lease(const std::shared_ptr<const Program>& program);
  int size() const;
  int64_t bytes() const;
  std::shared_ptr<const Program> newest() const;
  void take_arenas(ProgramCache& before);  // those that no run is using

 private:
  static constexpr size_t kLeast = 8;
  static constexpr int64_t kProgramBytes = int64_t{8} << 20;
  void check_memory(const Program& program) const;
  void give_back(std::unique_ptr<Frame> frame);
  struct Entry {
    size_t hash;
    std::shared_ptr<const Program> program;
    std::vector<std::unique_ptr<Frame>> frames;
  };
  void evict(std::list<Entry>& gone);  // takes out what is too much; under the lock, which `gone` should outlive
  std::shared_ptr<const Graph> graph_;
  std::vector<const OpRow*> rows_;  // of the graph's nodes
  BuildOptions options_;
  std::unique_ptr<BuildScratch> scratch_;  // of the last build
  const int capacity_;
  mutable ForkSafeMutex mutex_;
  using Entries = std::list<Entry>;
  Entries::iterator find(size_t hash, std::span<const InputKey> keys);

  Entries entries_;   // most recently used first
  std::unordered_multimap<size_t, Entries::iterator> by_hash_;
  int64_t bytes_ = 0;
  std::vector<std::pair<int64_t, Buffer>> arenas_;  // free, shared by all Programs
  SpareMemory spare_;
};

}  // namespace tiercel
