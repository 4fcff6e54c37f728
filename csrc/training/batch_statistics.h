// BatchNormalization in training: it takes the batch's statistics and moves the running ones, in bodies too.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace tiercel {

// What running statistics (values that come into a graph) are when it has run.
using Statistics = std::map<Value*, Value*>;

// The names of the running statistics, once each: constants of the graph that its BatchNormalization nodes read, those in bodies too.
std::vector<std::string> statistics_of(const Graph& g);

// The nodes that take `rounded` for a running statistic, those in bodies too, take `master` instead: small moves are not rounded away.
void read_masters(Graph& graph, Value* rounded, Value* master);

// BatchNormalization with known statistics becomes its training form. One in a body gives what its statistics are next to the graph around it:
// an If has an output more for each of them, which the other branch leaves as they were; a Loop or Scan carries them from step to step.
// Those that cannot be carried stay as in inference; `notes` says which and why.
Statistics train_norms(Graph& graph, std::vector<std::string>& notes);

}  // namespace tiercel
