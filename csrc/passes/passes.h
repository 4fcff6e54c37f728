// Graph rewrites: each a function Graph -> Graph with a name, in one ordered table.
//
// TIERCEL_DISABLE_PASS=name[,name] leaves passes out; TIERCEL_DUMP=folder writes an .onnx after each pass that changed
// something: any wrong result is a bisection.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace tiercel {

struct Pass {
  const char* name;
  int level;                 // runs when the session's optimization_level is at least this: 1 basic, 2 extended, 99 all
  void (*run)(Graph& graph); // on the graph and, by the driver, on each body of If, Loop and Scan
};
std::span<const Pass> pass_table();

struct PassOptions {
  int level = 99;
  std::vector<std::string> disabled;
};
// Runs the table on a model. Types of all values are inferred before the first pass and after each.
void optimize(Model& model, const PassOptions& options);

// Types of all values, in bodies too.
void infer_all(Graph& graph);

// Calls f on the graph and on every body in it, innermost first.
void for_each_graph(Graph& graph, const std::function<void(Graph&)>& f);

}  // namespace tiercel
